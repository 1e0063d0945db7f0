"""The unit of work: what one transaction changes and publishes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import asyncpg

from muster_contracts import Envelope, Erasure, Event, encode
from muster_runtime.context import Context
from muster_runtime.database import outbox, writes
from muster_runtime.database.connections import Connection
from muster_runtime.database.locks import LOCK
from muster_runtime.database.writes import Writes


@dataclass(slots=True)
class UnitOfWork:
    """One transaction that changes the facts of the agencies that it has locked.

    `now` is the latest of the runtime's clock, the last instant of any transaction of these agencies, and the times of
    the events being applied. `found` contains the rows of the statement that took the locks. `causes` contains the
    events being applied, by ID. Events are published by the same commit that makes their facts true, in the order in
    which they were passed.
    """

    connection: Connection
    agencies: frozenset[str]
    now: datetime
    context: Context
    found: Sequence[asyncpg.Record] = ()
    causes: Mapping[str, Envelope] = field(default_factory=dict)
    writes: Writes = field(default_factory=Writes)
    _entries: list[outbox.Entry] = field(default_factory=list)
    _states: outbox.States = field(default_factory=outbox.States)
    _wake: bool = False

    async def take_in(self, causes: Mapping[str, Envelope]) -> None:
        """Note that this transaction, which has locked their agencies, applies these events."""
        self.causes = causes
        latest = max((cause.time for cause in causes.values()), default=self.now)
        if latest > self.now:
            self.now = await self.connection.fetchval(LOCK.statement, sorted(self.agencies), latest, False)

    def publish(self, event: Event, *, time: datetime | None = None, causation_id: str | None = None) -> None:
        """Publish an event with this transaction.

        `time` is when the fact became true, by default now. `causation_id` is the event that led to it, by default the
        context's. Raises InvalidInput for an event that is too large for Kafka, because it would stop everything after
        it.
        """
        run = self._run(type(event), event.agency_id, self._context_of(causation_id), time)
        self._publish_records(run, [(event.record_key, encode(event))])

    def publish_encoded(
        self, event_class: type[Event], agency_id: str, payloads: Sequence[bytes], *, context: Context | None = None
    ) -> None:
        """Publish many events of one type, keyed by the agency, whose data is already encoded as JSON. See publish.

        A model for each would make bulk work five times as expensive. `context` is their origin, by default this unit
        of work's context.
        """
        run = self._run(event_class, agency_id, context)
        self._publish_records(run, [(agency_id, payload) for payload in payloads])

    def publish_erased(
        self, event_class: type[Erasure], agency_id: str, subject_refs: Sequence[str], *, context: Context | None = None
    ) -> None:
        """Publish the erasures of many people. See publish_encoded."""
        run = self._run(event_class, agency_id, context)
        self._publish_records(run, [(subject_ref, None) for subject_ref in subject_refs])

    def publish_state(self, event: Event, *, causation_id: str | None = None) -> None:
        """Publish the current state of a key of a compacted topic, after all other events.

        If one transaction publishes several states of a key, only the last counts.
        """
        records = {event.record_key: encode(event)}
        self.publish_states(type(event), event.agency_id, records, causation_id=causation_id)

    def publish_states(
        self,
        event_class: type[Event],
        agency_id: str,
        records: Mapping[str, bytes | None],
        *,
        context: Context | None = None,
        causation_id: str | None = None,
    ) -> None:
        """Publish the encoded states of many keys; None is a tombstone. See publish_state and publish_encoded."""
        run = self._run(event_class, agency_id, context or self._context_of(causation_id))
        outbox.require_sizes(run.event_type, records.items())
        self._states.add(run, records)

    def _context_of(self, causation_id: str | None) -> Context:
        """The context of an event: that of the applied event that caused it, or this transaction's own."""
        cause = self.causes.get(causation_id or "")
        if cause is None:
            return self.context if causation_id is None else replace(self.context, causation_id=causation_id)
        traceparent = self.context.traceparent_after(cause.traceparent)
        return replace(
            self.context, causation_id=causation_id, correlation_id=cause.correlation_id, traceparent=traceparent
        )

    def _publish_records(self, run: outbox.RunKey, records: Sequence[outbox.OutboxRecord]) -> None:
        outbox.require_sizes(run.event_type, records)
        self._entries.append(outbox.Entry(run, records))

    def _run(
        self, event_class: type[Event], agency_id: str, context: Context | None, time: datetime | None = None
    ) -> outbox.RunKey:
        """Raises RuntimeError for an event of an agency that is not locked, or without a correlation ID."""
        context = context or self.context
        if agency_id not in self.agencies:
            raise RuntimeError(f"{event_class.event_type} is of {agency_id}, which is not locked")
        if not context.correlation_id:
            raise RuntimeError(
                f"{event_class.event_type} of {agency_id} has no correlation ID: name the event that led to it"
            )
        return outbox.RunKey(
            event_class.topic,
            agency_id,
            event_class.event_type,
            time or self.now,
            context.correlation_id,
            context.causation_id,
            context.traceparent,
        )

    def wake(self) -> None:
        """Wake this service's relay and scheduler when the transaction commits."""
        self._wake = True

    async def flush(self) -> None:
        """Execute the deferred writes, and append the events to the outbox."""
        events = outbox.append([*self._entries, *self._states.take()], self.now)
        await writes.send(self.connection, self.writes.take(), events, wake=self._wake)
        self._entries.clear()

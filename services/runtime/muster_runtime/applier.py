"""Applies records to a service's schema: each event once, in its stream's order; what cannot be applied parks.

The last sequence applied is kept in the very transaction that holds the effects.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from itertools import groupby, islice, zip_longest
from typing import Any

import asyncpg
import structlog
from structlog.contextvars import bound_contextvars

from muster_contracts import Envelope, Event, topics
from muster_runtime import parking, positions
from muster_runtime.clock import MAX_SKEW
from muster_runtime.context import Context
from muster_runtime.db import ONE_AGENCYS, RETRYABLE, Database, UnitOfWork, concerns_all
from muster_runtime.events import EventHandler, Received, Unreadable
from muster_runtime.parking import (
    DEFAULT_LIMITS,
    AgencyStands,
    ParkingLimits,
    Record,
    StreamFull,
    StreamStands,
    Waiting,
)
from muster_runtime.positions import START, Position, StreamKey
from muster_runtime.reading import Item, RecordReader
from muster_runtime.telemetry import APPLIED, DUPLICATES, GAPS, HANDLER_SECONDS, NEW_EPOCHS, describe

# How many streams share a transaction: each takes a lock, and what Postgres has of them is for all its clients.
STREAMS_AT_ONCE = 500

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done with one stream's items: apply the fresh ones, then park the held ones."""

    position: Position
    fresh: Sequence[Item]
    held: Sequence[Item]
    reason: str = ""


class AgencyAhead(Exception):
    """One agency of several has an instant ahead of the clock, which would date what the others do as well.

    Each is then applied alone: a producer whose clock is wrong dates its own agency's facts, and nobody else's.
    """


class Applier:
    """One service's subscriptions, and the state of its consumer group in its own schema."""

    def __init__(
        self,
        database: Database,
        subscriptions: Mapping[type[Event], EventHandler],
        *,
        service: str,
        group: str,
        limits: ParkingLimits = DEFAULT_LIMITS,
    ) -> None:
        self._database = database
        self._handlers = {cls.event_type: handler for cls, handler in subscriptions.items()}
        self._reader = RecordReader(subscriptions, service, database.clock)
        self._compacted = {name for name, topic in topics().items() if topic.compacted}
        self.service = service
        self._limits = limits
        self.group = group

    async def apply(self, records: Sequence[Record]) -> list[StreamStands]:
        """Apply records, of any streams, in their order; what is refused is parked.

        Answers the streams that must wait, and of which nothing more was taken. Any error is the server's fault, and
        no record's: then all of them are to be handed in again, and what is applied already is skipped.
        """
        streams: dict[StreamKey, list[Item]] = {}
        for item in self.read(records):
            streams.setdefault((item.record.topic, item.record.agency_id), []).append(item)
        standing: list[StreamStands] = []
        left = iter(streams.items())
        while part := dict(islice(left, STREAMS_AT_ONCE)):
            standing += await self._apply_all(part)
        return standing

    def read(self, records: Iterable[Record]) -> list[Item]:
        """What is in each record, or the defect that keeps it from being applied."""
        latest = self._reader.latest()
        return [self._reader.read(record, latest) for record in records]

    async def may_go_on(self, stands: StreamStands) -> bool:
        """Whether the partition of a stream that had to wait is to be read again: a tenth of its room is free.

        That of an agency that stands for another reason always is, for the sake of the others in it.
        """
        if not isinstance(stands, StreamFull):
            return True
        async with self._database.read(stands.agency_id) as connection:
            waiting = await parking.waiting(connection, self.group, stands.topic, stands.agency_id)
        return waiting <= self._limits.records * 0.9

    async def _apply_all(self, streams: Mapping[StreamKey, Sequence[Item]]) -> list[StreamStands]:
        """Apply all streams together; where that cannot be, each alone, so that only the culprit parks or waits."""
        if len(streams) > 1:
            try:
                await self._apply_streams(streams)
                return []
            except Exception as error:
                if concerns_all(error) and not isinstance(error, StreamFull):
                    raise
        standing: list[StreamStands] = []
        busy: dict[str, str] = {}  # agencies that stand, and why: one wait for each is enough
        for (topic, agency_id), items in streams.items():
            if agency_id in busy:
                standing.append(AgencyStands(topic, agency_id, busy[agency_id]))
                continue
            try:
                await self._apply_alone((topic, agency_id), items)
            except StreamFull as full:
                standing.append(full)
            except ONE_AGENCYS as error:
                busy[agency_id] = f"{topic} of {agency_id} waits: {describe(error)}"
                standing.append(AgencyStands(topic, agency_id, busy[agency_id]))
        return standing

    async def _apply_alone(self, stream: StreamKey, items: Sequence[Item]) -> None:
        """Apply one stream; where that is refused, item by item, and park it from the one that is."""
        try:
            await self._apply_streams({stream: items})
            return
        except RETRYABLE:
            raise
        except Exception as error:
            refusal = error
        for index, item in enumerate(items):
            try:
                if len(items) > 1:
                    await self._apply_streams({stream: [item]})
                    continue
            except RETRYABLE:
                raise
            except Exception as error:
                refusal = error
            topic, agency_id = stream
            async with self._transaction([agency_id]) as uow:
                last = await positions.of_stream(uow.connection, self.group, stream)
                # Another process may have taken the partition over, and applied some of them.
                held = [later for later in items[index:] if later.position is None or later.position > last]
                if held:
                    await self._park(uow, held, describe(refusal), refused=not _blames_record(refusal))
            _log.error("stream_parked", topic=topic, agency_id=agency_id, exc_info=refusal)
            return

    async def _apply_streams(self, streams: Mapping[StreamKey, Sequence[Item]]) -> None:
        """One transaction: last sequences, effects, events, and whatever parks."""
        agencies = sorted({agency_id for _, agency_id in streams})
        async with self._transaction(agencies) as uow:
            known, parked = await positions.read(uow.connection, self.group, streams)
            plans: dict[StreamKey, Plan] = {}
            for stream, items in streams.items():
                last = known.get(stream, START)
                if stream in parked:
                    behind = [i for i in items if i.position is None or i.position > last]
                    await parking.append(uow, self.group, _waiting(behind), self._limits)
                else:
                    plans[stream] = self.plan(items, last, stream[0])
            await self.carry_out(uow, plans)
            for plan in plans.values():
                if plan.held:
                    await self._park(uow, plan.held, plan.reason, refused=False)

    def plan(self, items: Sequence[Item], last: Position, topic: str) -> Plan:
        """Drop duplicates, whatever is wrong with them; from the first defect or gap on, hold everything."""
        fresh: list[Item] = []
        for index, item in enumerate(items):
            position = item.position
            if position is not None and position <= last:
                DUPLICATES.labels(self.service, topic).inc()
                continue
            if item.defect is not None or position is None:
                return Plan(last, fresh, items[index:], item.defect or "unreadable")
            epoch, sequence = position
            if self.leaves_gap(position, last, topic):
                GAPS.labels(self.service, topic).inc()
                reason = f"gap: sequence {last[1] + 1} was expected and {sequence} came"
                return Plan(last, fresh, items[index:], reason)
            if epoch > last[0] and last != START:  # else nothing was known of the stream, and nothing needs reconciling
                NEW_EPOCHS.labels(self.service, topic).inc()
                _log.error("new_epoch", topic=topic, agency_id=item.record.agency_id, epoch=epoch)
            fresh.append(item)
            last = position
        return Plan(last, fresh, [])

    def leaves_gap(self, position: Position, last: Position, topic: str) -> bool:
        """Whether events are missing before a position. Sequences go on over an epoch; a compacted topic has holes."""
        return position[1] > last[1] + 1 and topic not in self._compacted

    async def carry_out(self, uow: UnitOfWork, plans: Mapping[StreamKey, Plan]) -> None:
        """Apply what is fresh, and keep the last sequences."""
        fresh = (item.envelope for plan in plans.values() for item in plan.fresh)
        await uow.take_in({envelope.id: envelope for envelope in fresh if envelope})
        clock = self._database.clock
        if len(uow.agencies) > 1 and not clock.virtual and uow.now > clock.now() + MAX_SKEW:
            raise AgencyAhead
        for run in _runs([plan.fresh for plan in plans.values()]):
            event_type = run[0].envelope.type
            with HANDLER_SECONDS.labels(self.service, event_type).time(), _logged_as(run[0].envelope):
                await self._handlers[event_type](uow, run)
        advanced = {stream: plan.position for stream, plan in plans.items() if plan.fresh}
        await positions.store(uow.connection, self.group, advanced)
        for (topic, _), plan in plans.items():
            APPLIED.labels(self.service, topic).inc(len(plan.fresh))

    async def _park(self, uow: UnitOfWork, items: Sequence[Item], reason: str, *, refused: bool) -> None:
        await parking.park(uow, self.group, _waiting(items), reason, self._limits, refused=refused)

    def _transaction(self, agencies: Sequence[str]) -> AbstractAsyncContextManager[UnitOfWork]:
        return self._database.write(*agencies, context=Context(actor=self.service, correlation_id=""))


def _waiting(items: Iterable[Item]) -> list[Waiting]:
    return [Waiting(item.record, item.position) for item in items]


def _blames_record(error: Exception) -> bool:
    """Whether what a handler met is a defect of the record's data, and says nothing against the handler."""
    return isinstance(error, Unreadable | asyncpg.DataError | asyncpg.ProgramLimitExceededError | OverflowError)


def _logged_as(first: Envelope) -> AbstractContextManager[object]:
    """Bind a run's origin to its log lines: that of its first event, for they mostly share one."""
    return bound_contextvars(correlation_id=first.correlation_id, causation_id=first.id)


def _runs(streams: Sequence[Sequence[Item]]) -> Iterator[list[Received[Any]]]:
    """Cut streams into runs of one type, and join the n-th runs of all streams where the type is one.

    Each stream keeps its order; streams have none between them.
    """
    cut = [
        [(event_type, list(run)) for event_type, run in groupby(_readable(stream), key=lambda r: r.envelope.type)]
        for stream in streams
    ]
    for layer in zip_longest(*cut):
        joined: dict[str, list[Received[Any]]] = {}
        for entry in layer:
            if entry is not None:
                joined.setdefault(entry[0], []).extend(entry[1])
        yield from joined.values()


def _readable(items: Iterable[Item]) -> Iterator[Received[Any]]:
    return (item.event for item in items if item.event is not None)

"""Applies records to a service's schema: each event once, in its stream's order; what cannot be applied parks.

The last sequence applied is kept in the very transaction that holds the effects.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Any

import structlog
from structlog.contextvars import bound_contextvars

from muster_contracts import Envelope, Event, topics
from muster_runtime import audit, parking, positions
from muster_runtime.context import Context
from muster_runtime.db import ONE_AGENCYS, RETRYABLE, Database, UnitOfWork, concerns_all
from muster_runtime.errors import Conflict, NotFound
from muster_runtime.events import EventHandler, Received
from muster_runtime.parking import DEFAULT_LIMITS, AgencyStands, ParkingLimits, Record, StreamFull, StreamStands
from muster_runtime.positions import START, Position, StreamKey
from muster_runtime.reading import Item, RecordReader
from muster_runtime.telemetry import APPLIED, DUPLICATES, GAPS, HANDLER_SECONDS, NEW_EPOCHS, describe

# How many parked records a replay applies in one transaction.
REPLAY_RECORDS = 500

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be done with one stream's items: apply the fresh ones, then park the held ones."""

    position: Position
    fresh: Sequence[Item]
    held: Sequence[Item]
    reason: str = ""


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
        self._reader = RecordReader(subscriptions, service)
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
        for record in records:
            streams.setdefault((record.topic, record.agency_id), []).append(self._reader.read(record))
        return await self._apply_all(streams)

    async def replay(self, topic: str, agency_id: str, context: Context) -> str | None:
        """Apply a parked stream's records in order; it is unparked with the last one.

        Returns the reason why it still stands, or None. It goes in steps, each a transaction of its own, so that
        a replay that is broken off is simply begun again.
        """
        at_once = REPLAY_RECORDS
        while True:
            try:
                if not await self._replay_next(topic, agency_id, context, at_once):
                    return None
            except RETRYABLE:
                raise
            except Exception as error:
                if at_once == 1:
                    _log.warning("replay_refused", topic=topic, agency_id=agency_id, exc_info=error)
                    return describe(error)
                at_once = 1  # so that all that comes before the culprit is applied

    async def _replay_next(self, topic: str, agency_id: str, context: Context, at_once: int) -> bool:
        """Apply the first records of a parked stream; False when none is left. Raises Conflict at one that stands."""
        async with self._database.write(agency_id, context=context) as uow:
            records = await parking.parked_records(uow.connection, self.group, topic, agency_id, at_once)
            if not records:
                return False
            items = [self._reader.read(record) for record in records]
            await uow.take_in({item.envelope.id: item.envelope for item in items if item.envelope})
            plan = self._plan(items, await positions.of_stream(uow.connection, self.group, (topic, agency_id)), topic)
            done = records[: len(records) - len(plan.held)]
            if done:
                await self._apply(uow, {(topic, agency_id): plan})
                await parking.remove(uow, self.group, done)
                await audit.record(
                    uow,
                    command="ReplayParkedStream",
                    agency_id=agency_id,
                    subject=topic,
                    after={"records": len(done), "position": plan.position},
                )
        if plan.held:
            raise Conflict(plan.reason)
        return True

    async def accept_gap(self, topic: str, agency_id: str, reason: str, context: Context) -> Position:
        """Give up the sequences that a stream parked for: its position moves to just before its first record.

        Returns that position; then replay. Raises NotFound where nothing is parked, and Conflict where it is
        parked for something else.
        """
        async with self._database.write(agency_id, context=context) as uow:
            records = await parking.parked_records(uow.connection, self.group, topic, agency_id, 1)
            if not records:
                raise NotFound(f"no stream of {agency_id} on topic {topic} is parked")
            item = self._reader.read(records[0])
            last = await positions.of_stream(uow.connection, self.group, (topic, agency_id))
            if item.defect is not None or item.position is None:
                raise Conflict(f"the stream did not park for a gap, but for this: {item.defect}")
            if item.position <= last or not self._leaves_gap(item.position, last, topic):
                raise Conflict("there is no gap: the first record that waits fits; replay the stream")
            # In the old epoch, so that the first event of a new one still raises its alarm.
            accepted = (last[0], item.position[1] - 1)
            await positions.store(uow.connection, self.group, {(topic, agency_id): accepted})
            await audit.record(
                uow,
                command="AcceptGap",
                agency_id=agency_id,
                subject=topic,
                before={"position": last},
                after={"position": accepted},
                reason=reason,
            )
            return accepted

    async def may_go_on(self, stands: StreamStands) -> bool:
        """Whether the partition of a stream that had to wait is to be read again: a tenth of its room is free.

        That of an agency that stands for another reason always is, for the sake of the others in it.
        """
        if not isinstance(stands, StreamFull):
            return True
        async with self._database.read(stands.agency_id) as connection:
            waiting = await parking.waiting(connection, self.group, stands.topic, stands.agency_id)
        return waiting <= self._limits.records * 0.9

    async def discard(self, topic: str, agency_id: str, reason: str, context: Context) -> bool:
        """Give up the first record of a parked stream, with an audit row; False when nothing is parked.

        The position moves past the record where it is the next one; a gap before it stays one, and is accepted
        or not by itself. The audit names the event; what it said stays in Kafka, for it may tell of a person.
        """
        async with self._database.write(agency_id, context=context) as uow:
            records = await parking.parked_records(uow.connection, self.group, topic, agency_id, 1)
            if not records:
                return False
            item = self._reader.read(records[0])
            last = await positions.of_stream(uow.connection, self.group, (topic, agency_id))
            position = item.position
            belongs = item.envelope is not None and item.envelope.agency_id == agency_id
            if position is None or not belongs or self._leaves_gap(position, last, topic):
                position = last
            await positions.store(uow.connection, self.group, {(topic, agency_id): max(position, last)})
            await parking.remove(uow, self.group, records)
            await audit.record(
                uow,
                command="DiscardParkedRecord",
                agency_id=agency_id,
                subject=f"{topic}[{records[0].partition}]@{records[0].offset}",
                before={"position": last},
                after={
                    "position": max(position, last),
                    "event_id": item.envelope.id if item.envelope else None,
                    "event_type": item.envelope.type if item.envelope else None,
                },
                reason=reason,
            )
            return True

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
                    await self._park(uow, held, describe(refusal))
            _log.error("stream_parked", topic=topic, agency_id=agency_id, exc_info=refusal)
            return

    async def _apply_streams(self, streams: Mapping[StreamKey, Sequence[Item]]) -> None:
        """One transaction: last sequences, effects, events, and whatever parks."""
        agencies = sorted({agency_id for _, agency_id in streams})
        causes = {item.envelope.id: item.envelope for items in streams.values() for item in items if item.envelope}
        async with self._transaction(agencies, causes) as uow:
            known, parked = await positions.read(uow.connection, self.group, streams)
            plans: dict[StreamKey, _Plan] = {}
            for stream, items in streams.items():
                last = known.get(stream, START)
                if stream in parked:
                    behind = [i.record for i in items if i.position is None or i.position > last]
                    await parking.append(uow, self.group, behind, self._limits)
                else:
                    plans[stream] = self._plan(items, last, stream[0])
            await self._apply(uow, plans)
            for plan in plans.values():
                if plan.held:
                    await self._park(uow, plan.held, plan.reason)

    def _plan(self, items: Sequence[Item], last: Position, topic: str) -> _Plan:
        """Drop duplicates, whatever is wrong with them; from the first defect or gap on, hold everything."""
        fresh: list[Item] = []
        for index, item in enumerate(items):
            position = item.position
            if position is not None and position <= last:
                DUPLICATES.labels(self.service, topic).inc()
                continue
            if item.defect is not None or position is None:
                return _Plan(last, fresh, items[index:], item.defect or "unreadable")
            epoch, sequence = position
            if self._leaves_gap(position, last, topic):
                GAPS.labels(self.service, topic).inc()
                reason = f"gap: sequence {last[1] + 1} was expected and {sequence} came"
                return _Plan(last, fresh, items[index:], reason)
            if epoch > last[0] and last != START:  # else nothing was known of the stream, and nothing needs reconciling
                NEW_EPOCHS.labels(self.service, topic).inc()
                _log.error("new_epoch", topic=topic, agency_id=item.record.agency_id, epoch=epoch)
            fresh.append(item)
            last = position
        return _Plan(last, fresh, [])

    def _leaves_gap(self, position: Position, last: Position, topic: str) -> bool:
        """Whether events are missing before a position. Sequences go on over an epoch; a compacted topic has holes."""
        return position[1] > last[1] + 1 and topic not in self._compacted

    async def _apply(self, uow: UnitOfWork, plans: Mapping[StreamKey, _Plan]) -> None:
        for run in _runs([plan.fresh for plan in plans.values()]):
            event_type = run[0].envelope.type
            with HANDLER_SECONDS.labels(self.service, event_type).time(), _logged_as(run[0].envelope):
                await self._handlers[event_type](uow, run)
        advanced = {stream: plan.position for stream, plan in plans.items() if plan.fresh}
        await positions.store(uow.connection, self.group, advanced)
        for (topic, _), plan in plans.items():
            APPLIED.labels(self.service, topic).inc(len(plan.fresh))

    async def _park(self, uow: UnitOfWork, items: Sequence[Item], reason: str) -> None:
        await parking.park(uow, self.group, [item.record for item in items], reason, self._limits)

    def _transaction(
        self, agencies: Sequence[str], causes: Mapping[str, Envelope] | None = None
    ) -> AbstractAsyncContextManager[UnitOfWork]:
        context = Context(actor=self.service, correlation_id="")
        return self._database.write(*agencies, context=context, causes=causes or {})


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

"""Applies records to a service's schema: each event once, in its stream's order; what cannot be applied parks.

The last sequence applied is kept in the very transaction that holds the effects.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice

import asyncpg
import structlog
from structlog.contextvars import bound_contextvars

from muster_contracts import Envelope, Event, topics
from muster_runtime.clock import MAX_SKEW
from muster_runtime.context import Context
from muster_runtime.database import locks
from muster_runtime.database.transactions import ONE_AGENCYS, RETRYABLE, Database, UnitOfWork, concerns_all
from muster_runtime.messaging import offsets, parking, positions
from muster_runtime.messaging.events import EventHandler, Unreadable
from muster_runtime.messaging.offsets import Partition
from muster_runtime.messaging.parking import (
    DEFAULT_LIMITS,
    AgencyBlocked,
    ParkingLimits,
    Record,
    StreamBlocked,
    StreamFull,
    Waiting,
)
from muster_runtime.messaging.plan import Plan, leaves_gap, make_plan, runs
from muster_runtime.messaging.positions import START, Position, StreamKey
from muster_runtime.messaging.record_reader import Item, RecordReader
from muster_runtime.observability import audit
from muster_runtime.observability.telemetry import APPLIED, HANDLER_SECONDS, describe
from muster_runtime.pacing import Pace

# How many records are read before the event loop may go on: some half a millisecond.
READ_AT_ONCE = 50

# How many streams share a transaction: each takes a lock, and what Postgres has of them is for all its clients.
STREAMS_AT_ONCE = 500

# How many parked records a replay applies in one transaction.
REPLAY_RECORDS = 500

# How long to wait for the lock of an agency that is known to be held elsewhere, while the others of the batch wait. The
# transactions of a busy agency take turns within it.
HELD_LOCK_SECONDS = 0.1

_log = structlog.get_logger(__name__)


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
        self.service = service
        self._limits = limits
        self._held: set[str] = set()  # agencies whose locks were held elsewhere when last asked for
        self._context = Context(actor=service, correlation_id="")
        self.group = group

    async def apply(self, records: Sequence[Record], first: Mapping[Partition, int] = {}) -> list[StreamBlocked]:
        """Apply records, of any streams, in their order; what is refused is parked.

        `first` are the offsets from which their partitions were read. Raises DatabaseWentBack where the database has
        lost what came before them and the topic is compacted: on others, what follows then parks for a gap.

        Answers the streams that must wait, and of which nothing more was taken. Any error is the server's fault, and
        no record's: then all of them are to be handed in again, and what is applied already is skipped.
        """
        streams: dict[StreamKey, list[Item]] = {}
        pace = Pace()
        latest = self._reader.latest()
        for start in range(0, len(records), READ_AT_ONCE):
            await pace.keep()
            for record in records[start : start + READ_AT_ONCE]:
                streams.setdefault((record.topic, record.agency_id), []).append(self._reader.read(record, latest))
        standing: list[StreamBlocked] = []
        known = {partition: offset for partition, offset in first.items() if topics()[partition[0]].compacted}
        left = iter(streams.items())
        while part := dict(islice(left, STREAMS_AT_ONCE)):
            standing += await self._apply_all(part, known)
        return standing

    def read(self, records: Iterable[Record]) -> list[Item]:
        """What is in each record, or the defect that keeps it from being applied."""
        latest = self._reader.latest()
        return [self._reader.read(record, latest) for record in records]

    async def may_go_on(self, stands: StreamBlocked) -> bool:
        """Whether the partition of a stream that had to wait is to be read again: a tenth of its room is free.

        That of an agency that stands for another reason always is, for the sake of the others in it.
        """
        if not isinstance(stands, StreamFull):
            return True
        async with self._database.read(stands.agency_id) as connection:
            waiting = await parking.waiting(connection, self.group, stands.topic, stands.agency_id)
        return waiting <= self._limits.records * 0.9

    async def _apply_all(
        self, streams: Mapping[StreamKey, Sequence[Item]], known: Mapping[Partition, int]
    ) -> list[StreamBlocked]:
        """Apply streams; answers those that must wait. Those of agencies whose locks are known to be held come last."""
        free, held = streams, dict[StreamKey, Sequence[Item]]()
        if any(agency_id in self._held for _, agency_id in streams):
            free, held = await self._part_by_locks(streams)
        standing = await self._apply_together(free, known)
        return standing + await self._apply_each(held, known, patience_seconds=HELD_LOCK_SECONDS)

    async def _apply_together(
        self, streams: Mapping[StreamKey, Sequence[Item]], known: Mapping[Partition, int]
    ) -> list[StreamBlocked]:
        """Apply all streams together; where that cannot be, each alone, so that only the culprit parks or waits."""
        if len(streams) > 1:
            try:
                await self._apply_streams(streams, known)
                return []
            except asyncpg.LockNotAvailableError:
                free, held = await self._part_by_locks(streams)
                if held:
                    standing = await self._apply_together(free, known)
                    return standing + await self._apply_each(held, known, patience_seconds=HELD_LOCK_SECONDS)
            except Exception as error:
                if concerns_all(error) and not isinstance(error, StreamFull):
                    raise
        return await self._apply_each(streams, known)

    async def _part_by_locks(
        self, streams: Mapping[StreamKey, Sequence[Item]]
    ) -> tuple[dict[StreamKey, Sequence[Item]], dict[StreamKey, Sequence[Item]]]:
        """The streams of agencies whose locks are free, and of those whose are held."""
        agencies = {agency_id for _, agency_id in streams}
        async with self._database.connection() as connection:
            free = await locks.free(connection, agencies)
        self._held = self._held - free | (agencies - free)
        return (
            {stream: items for stream, items in streams.items() if stream[1] in free},
            {stream: items for stream, items in streams.items() if stream[1] not in free},
        )

    async def _apply_each(
        self,
        streams: Mapping[StreamKey, Sequence[Item]],
        known: Mapping[Partition, int],
        patience_seconds: float | None = None,
    ) -> list[StreamBlocked]:
        """Apply each stream alone; answers those that must wait."""
        standing: list[StreamBlocked] = []
        busy: dict[str, str] = {}  # agencies that stand, and why: one wait for each is enough
        for (topic, agency_id), items in streams.items():
            if agency_id in busy:
                standing.append(AgencyBlocked(topic, agency_id, busy[agency_id]))
                continue
            try:
                await self._apply_alone((topic, agency_id), items, known, patience_seconds)
            except StreamFull as full:
                standing.append(full)
            except ONE_AGENCYS as error:
                if isinstance(error, asyncpg.LockNotAvailableError):
                    self._held.add(agency_id)
                busy[agency_id] = f"{topic} of {agency_id} waits: {describe(error)}"
                standing.append(AgencyBlocked(topic, agency_id, busy[agency_id]))
        return standing

    async def _apply_alone(
        self,
        stream: StreamKey,
        items: Sequence[Item],
        known: Mapping[Partition, int],
        patience_seconds: float | None,
    ) -> None:
        """Apply one stream; where that is refused, item by item, and park it from the one that is.

        Raises StreamFull from the first item on for which there is no room.
        """
        refusal: Exception
        try:
            await self._apply_streams({stream: items}, known, patience_seconds)
            return
        except StreamFull as full:
            if len(items) == 1:
                raise
            refusal = full  # what comes first may fill the gap, and so make room
        except RETRYABLE:
            raise
        except Exception as error:
            refusal = error
        for index, item in enumerate(items):
            try:
                if len(items) > 1:
                    await self._apply_streams({stream: [item]}, known)
                    continue
            except RETRYABLE:
                raise
            except Exception as error:
                refusal = error
            topic, agency_id = stream
            async with self._database.write(agency_id, context=self._context) as uow:
                last = await positions.of_stream(uow.connection, self.group, stream)
                # Another process may have taken the partition over, and applied some of them.
                held = [later for later in items[index:] if later.position is None or later.position > last]
                if held:
                    await self._park(uow, held, describe(refusal), refused=not _blames_record(refusal))
            _log.error("stream_parked", topic=topic, agency_id=agency_id, exc_info=refusal)
            return

    async def _apply_streams(
        self,
        streams: Mapping[StreamKey, Sequence[Item]],
        known: Mapping[Partition, int],
        patience_seconds: float | None = None,
    ) -> None:
        """One transaction: last sequences, effects, events, and whatever parks."""
        agencies = sorted({agency_id for _, agency_id in streams})
        lock = positions.lock(self.group, streams, patience_seconds)
        async with self._database.write(*agencies, context=self._context, lock=lock) as uow:
            if known:
                await offsets.require(uow.connection, self.group, known)
            applied, parked = positions.found(uow)
            plans: dict[StreamKey, Plan] = {}
            filled: list[StreamKey] = []
            for stream, items in streams.items():
                last = applied.get(stream, START)
                if parked.get(stream) is False:  # parked, and not for missing events
                    behind = [i for i in items if i.position is None or i.position > last]
                    await parking.append(uow, self.group, _waiting(behind), self._limits)
                else:
                    plans[stream] = make_plan(self.service, stream[0], items, last)
            await self._carry_out(uow, plans)
            for stream, plan in plans.items():
                if stream in parked:
                    await parking.append(uow, self.group, _waiting(plan.held), self._limits)
                elif plan.held:
                    await self._park(uow, plan.held, plan.reason, gap=plan.gap)
                if (stream in parked or plan.gap) and await self._is_filled(uow, stream, plan.position):
                    filled.append(stream)
        for topic, agency_id in filled:
            await self.replay(topic, agency_id, self._context)

    async def _is_filled(self, uow: UnitOfWork, stream: StreamKey, last: Position) -> bool:
        """Whether nothing is missing any more before the first record that waits in a stream."""
        first = await parking.first_position(uow.connection, self.group, *stream)
        return first is not None and not leaves_gap(first, last, stream[0])

    async def replay(self, topic: str, agency_id: str, context: Context) -> str | None:
        """Apply a parked stream's records in order; it is unparked with the last one.

        Returns the reason why it is still parked, or None. It goes in steps, each a transaction of its own, so that
        a replay that is broken off is simply begun again.
        """
        at_once = REPLAY_RECORDS
        while True:
            try:
                plan = await self._replay_next(topic, agency_id, context, at_once)
                if plan is None:
                    return None
                if plan.held:
                    return plan.reason
            except RETRYABLE:
                raise
            except Exception as error:
                if at_once > 1:
                    at_once = 1  # so that all that comes before the culprit is applied
                    continue
                _log.warning("replay_refused", topic=topic, agency_id=agency_id, exc_info=error)
                reason = describe(error)
                async with self._database.write(agency_id, context=context) as uow:
                    await parking.note_reason(uow, self.group, topic, agency_id, reason, gap=False)
                return reason

    async def _replay_next(self, topic: str, agency_id: str, context: Context, at_once: int) -> Plan | None:
        """Apply the first records of a parked stream, up to one that is held; None when none waits."""
        async with self._database.write(agency_id, context=context) as uow:
            records = await parking.parked_records(uow.connection, self.group, topic, agency_id, at_once)
            if not records:
                return None
            last = await positions.of_stream(uow.connection, self.group, (topic, agency_id))
            plan = make_plan(self.service, topic, self.read(records), last)
            if done := records[: len(records) - len(plan.held)]:
                await self._carry_out(uow, {(topic, agency_id): plan})
                await parking.remove(uow, self.group, done)
                audit.record(
                    uow,
                    command="ReplayParkedStream",
                    agency_id=agency_id,
                    subject=topic,
                    after={"records": len(done), "position": plan.position},
                )
            if plan.held:  # here, so that a record that fills the gap next finds it noted
                await parking.note_reason(uow, self.group, topic, agency_id, plan.reason, gap=plan.gap)
            return plan

    async def _carry_out(self, uow: UnitOfWork, plans: Mapping[StreamKey, Plan]) -> None:
        """Apply what is fresh, and keep the last sequences."""
        fresh = (item.envelope for plan in plans.values() for item in plan.fresh)
        await uow.take_in({envelope.id: envelope for envelope in fresh if envelope})
        clock = self._database.clock
        if len(uow.agencies) > 1 and not clock.virtual and uow.now > clock.now() + MAX_SKEW:
            raise AgencyAhead
        for run in runs([plan.fresh for plan in plans.values()]):
            event_type = run[0].envelope.type
            with HANDLER_SECONDS.labels(self.service, event_type).time(), _logged_as(run[0].envelope):
                await self._handlers[event_type](uow, run)
        advanced = {stream: plan.position for stream, plan in plans.items() if plan.fresh}
        positions.store(uow, self.group, advanced)
        for (topic, _), plan in plans.items():
            APPLIED.labels(self.service, topic).inc(len(plan.fresh))

    async def _park(
        self, uow: UnitOfWork, items: Sequence[Item], reason: str, *, refused: bool = False, gap: bool = False
    ) -> None:
        await parking.park(uow, self.group, _waiting(items), reason, self._limits, refused=refused, gap=gap)


def _waiting(items: Iterable[Item]) -> list[Waiting]:
    return [Waiting(item.record, item.position) for item in items]


def _blames_record(error: Exception) -> bool:
    """Whether what a handler met is a defect of the record's data, and says nothing against the handler."""
    return isinstance(error, Unreadable | asyncpg.DataError | asyncpg.ProgramLimitExceededError | OverflowError)


def _logged_as(first: Envelope) -> AbstractContextManager[object]:
    """Bind a run's origin to its log lines: that of its first event, for they mostly share one."""
    return bound_contextvars(correlation_id=first.correlation_id, causation_id=first.id)

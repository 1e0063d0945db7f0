"""One transaction of the consumer: streams' positions, effects, new events, and parked records."""

from collections.abc import Iterable, Mapping

from muster_contracts import BEFORE_FIRST, Position
from muster_runtime.database.transactions import Database, UnitOfWork
from muster_runtime.messaging import offsets, parked, parking, positions
from muster_runtime.messaging.held_locks import Streams
from muster_runtime.messaging.offsets import Partition
from muster_runtime.messaging.parking import ParkingLimits, Waiting
from muster_runtime.messaging.plan import Plan, leaves_gap, make_plan
from muster_runtime.messaging.positions import StreamKey
from muster_runtime.messaging.record_reader import Item
from muster_runtime.messaging.replay import Replayer
from muster_runtime.messaging.subscriptions import Subscriptions
from muster_runtime.observability import tracing


class StreamsTransaction:
    """Applies the items of streams in one transaction, under the locks of all their agencies."""

    def __init__(self, database: Database, subscriptions: Subscriptions, limits: ParkingLimits) -> None:
        self._database = database
        self._subscriptions = subscriptions
        self._limits = limits
        self._replayer = Replayer(database, subscriptions)

    async def apply(
        self, streams: Streams, known: Mapping[Partition, int], patience_seconds: float | None = None
    ) -> None:
        """Apply fresh items, park those that must wait, then replay the streams whose gaps are now filled.

        Raises DatabaseWentBack if the database does not know of everything before the offsets `known`. With
        `patience_seconds`, it waits at most that long for a lock.
        """
        subscriptions, group = self._subscriptions, self._subscriptions.group
        agencies = sorted({agency_id for _, agency_id in streams})
        lock = positions.lock(group, streams, patience_seconds)
        batch = ((topic, item.envelope) for (topic, _), items in streams.items() for item in items)
        with tracing.application(group, batch):
            async with self._database.write(*agencies, context=subscriptions.context, lock=lock) as uow:
                if known:
                    await offsets.require(uow.connection, group, known)
                filled = await self._apply(uow, streams)
        for topic, agency_id in filled:
            await self._replayer.replay(topic, agency_id, subscriptions.context)

    async def _apply(self, uow: UnitOfWork, streams: Streams) -> list[StreamKey]:
        """Apply and park the streams' items; returns the streams whose gaps are now filled."""
        subscriptions = self._subscriptions
        applied, is_gap = positions.found(uow)
        plans: dict[StreamKey, Plan] = {}
        for stream, items in streams.items():
            last = applied.get(stream, BEFORE_FIRST)
            # Parked for another reason than missing events: only a replay can free it.
            if is_gap.get(stream) is False:
                await self._append(uow, (i for i in items if i.position is None or i.position > last))
            else:
                plans[stream] = make_plan(subscriptions.service, stream[0], items, last)
        await subscriptions.carry_out(uow, plans)
        for stream, plan in plans.items():
            if stream in is_gap:
                await self._append(uow, plan.held)
            elif plan.held:
                held = waiting(plan.held)
                await parking.park(uow, subscriptions.group, held, plan.reason, self._limits, gap=plan.gap)
        return [
            stream
            for stream, plan in plans.items()
            if (stream in is_gap or plan.gap) and await self._is_filled(uow, stream, plan.position)
        ]

    async def _append(self, uow: UnitOfWork, items: Iterable[Item]) -> None:
        await parking.append(uow, self._subscriptions.group, waiting(items), self._limits)

    async def _is_filled(self, uow: UnitOfWork, stream: StreamKey, last: Position) -> bool:
        """Whether all events before the stream's first waiting record are applied."""
        first = await parked.first_position(uow.connection, self._subscriptions.group, *stream)
        return first is not None and not leaves_gap(first, last, stream[0])


def waiting(items: Iterable[Item]) -> list[Waiting]:
    """Convert items for parking."""
    return [Waiting(item.record, item.position) for item in items]

"""Applies records to a service's schema: each event once, in its stream's order; what cannot be applied parks.

A batch is applied in one transaction where that is possible. Where it is not, each stream gets its own, and a stream
that is refused is applied item by item, so that a fault parks or delays one agency's stream of one topic and no other.
"""

import time
from collections.abc import Mapping, Sequence
from itertools import islice

import asyncpg
import structlog

from muster_contracts import topics
from muster_runtime.database.transactions import MISFITS, ONE_AGENCYS, RETRYABLE, Database, concerns_all
from muster_runtime.errors import describe
from muster_runtime.messaging import parked, parking, positions
from muster_runtime.messaging.events import Unreadable
from muster_runtime.messaging.held_locks import WAIT_SECONDS, WAITS_SECONDS, HeldLocks, Streams
from muster_runtime.messaging.offsets import Partition
from muster_runtime.messaging.parking import AgencyBlocked, ParkingLimits, StreamBlocked, StreamFull
from muster_runtime.messaging.positions import StreamKey
from muster_runtime.messaging.record_reader import Item, Record
from muster_runtime.messaging.streams_transaction import StreamsTransaction, waiting
from muster_runtime.messaging.subscriptions import Subscriptions

# How many streams share a transaction: each takes a lock, and Postgres has a fixed number of them for all clients.
STREAMS_AT_ONCE = 500

_log = structlog.get_logger(__name__)


class Applier:
    """Applies the records that a service subscribes to."""

    def __init__(self, database: Database, subscriptions: Subscriptions, limits: ParkingLimits) -> None:
        self._database = database
        self._limits = limits
        self._locks = HeldLocks(database)
        self._transaction = StreamsTransaction(database, subscriptions, limits)
        self.subscriptions = subscriptions

    async def apply(self, records: Sequence[Record], first: Mapping[Partition, int] = {}) -> list[StreamBlocked]:
        """Apply records of any streams, in their order; park what is refused.

        `first` are the offsets from which their partitions were read. Raises DatabaseWentBack if the database has
        lost what came before them and the topic is compacted: on other topics, what follows parks as a gap.

        Returns the streams that must wait, of which nothing more was applied. Any other error is the server's fault
        and no record's: hand in all records again, and those that are applied already are skipped.
        """
        streams: dict[StreamKey, list[Item]] = {}
        for item in await self.subscriptions.read(records):
            streams.setdefault((item.record.topic, item.record.agency_id), []).append(item)
        known = {partition: offset for partition, offset in first.items() if topics()[partition[0]].compacted}
        blocked: list[StreamBlocked] = []
        left = iter(streams.items())
        while part := dict(islice(left, STREAMS_AT_ONCE)):
            await self._locks.look_again(part)
            blocked += await self._apply_held_last(part, known, WAITS_SECONDS)
        return blocked

    async def may_go_on(self, blocked: StreamBlocked) -> bool:
        """Whether to read the partition of a blocked stream again: a full one once a tenth of its room is free.

        One that is blocked for another reason is always tried again, for the sake of the other streams beside it.
        """
        if not isinstance(blocked, StreamFull):
            return True
        async with self._database.read(blocked.agency_id) as connection:
            count = await parked.count(connection, self.subscriptions.group, blocked.topic, blocked.agency_id)
        return count <= self._limits.records * 0.9

    async def _apply_held_last(
        self, streams: Streams, known: Mapping[Partition, int], waits_seconds: float
    ) -> list[StreamBlocked]:
        """Apply streams; those with held locks last, waiting up to `waits_seconds` for all of these together."""
        free, held = self._locks.part(streams)
        blocked = await self._apply_together(free, known)
        return blocked + await self._apply_each(held, known, time.monotonic() + waits_seconds)

    async def _apply_together(self, streams: Streams, known: Mapping[Partition, int]) -> list[StreamBlocked]:
        """Apply streams in one transaction; if that is not possible, each in its own."""
        if len(streams) > 1:
            try:
                await self._transaction.apply(streams, known)
                return []
            except asyncpg.LockNotAvailableError:
                if await self._locks.look(streams):
                    return await self._apply_held_last(streams, known, 0)  # they have been waited for
            except Exception as error:
                if concerns_all(error) and not isinstance(error, StreamFull) and not _spares_others(error):
                    raise
        return await self._apply_each(streams, known)

    async def _apply_each(
        self, streams: Streams, known: Mapping[Partition, int], waits_until: float | None = None
    ) -> list[StreamBlocked]:
        """Apply each stream in its own transaction; wait for its lock until `waits_until`, at least WAIT_SECONDS."""
        blocked: list[StreamBlocked] = []
        reasons: dict[str, str] = {}  # by agency: one wait for its lock is enough
        for (topic, agency_id), items in streams.items():
            if agency_id in reasons:
                blocked.append(AgencyBlocked(topic, agency_id, reasons[agency_id]))
                continue
            patience = None if waits_until is None else max(WAIT_SECONDS, waits_until - time.monotonic())
            held = False
            try:
                await self._apply_alone((topic, agency_id), items, known, patience)
            except StreamFull as full:
                blocked.append(full)
            except RETRYABLE as error:
                if not _spares_others(error):
                    raise
                held = isinstance(error, asyncpg.LockNotAvailableError)
                reason = f"{topic} of {agency_id} waits: {describe(error)}"
                if not isinstance(error, MISFITS):  # which may concern this stream alone
                    reasons[agency_id] = reason
                blocked.append(AgencyBlocked(topic, agency_id, reason))
            self._locks.note(agency_id, held=held, had_turn=patience is None or patience > WAIT_SECONDS)
        return blocked

    async def _apply_alone(
        self, stream: StreamKey, items: Sequence[Item], known: Mapping[Partition, int], patience_seconds: float | None
    ) -> None:
        """Apply one stream; if it is refused, apply it item by item, and park it from the refused one on.

        Raises StreamFull from the first item on for which there is no room.
        """
        try:
            refusal = await self._refusal(stream, items, known, patience_seconds)
        except StreamFull as full:
            if len(items) == 1:
                raise
            refusal = full  # what comes first may fill the gap, and so make room
        if refusal is None:
            return
        for index, item in enumerate(items):
            if len(items) > 1:
                refusal = await self._refusal(stream, [item], known)
            if refusal is not None:
                await self._park(stream, items[index:], refusal)
                return

    async def _refusal(
        self,
        stream: StreamKey,
        items: Sequence[Item],
        known: Mapping[Partition, int],
        patience_seconds: float | None = None,
    ) -> Exception | None:
        """Apply items of one stream. Returns an error that an item caused, if any; raises any other."""
        try:
            async with self._database.blaming_schema(but=(Unreadable,)):
                await self._transaction.apply({stream: items}, known, patience_seconds)
        except RETRYABLE:
            raise
        except Exception as error:
            return error
        return None

    async def _park(self, stream: StreamKey, items: Sequence[Item], refusal: Exception) -> None:
        """Park a stream from its first item on, which was refused."""
        topic, agency_id = stream
        group = self.subscriptions.group
        async with self._database.write(agency_id, context=self.subscriptions.context) as uow:
            last = await positions.of_stream(uow.connection, group, stream)
            # Another process may have taken over the partition and applied some of them.
            if left := [item for item in items if item.position is None or item.position > last]:
                refused = not _blames_record(refusal)
                await parking.park(uow, group, waiting(left), describe(refusal), self._limits, refused=refused)
        _log.error("stream_parked", topic=topic, agency_id=agency_id, exc_info=refusal)


def _spares_others(error: Exception) -> bool:
    """Whether the error may concern one agency only. A missing table or column concerns all."""
    if isinstance(error, MISFITS):
        return not isinstance(error.__cause__, asyncpg.SyntaxOrAccessError)
    return isinstance(error, ONE_AGENCYS)


def _blames_record(error: Exception) -> bool:
    """Whether a handler met a defect of the record's data, which says nothing against the handler."""
    return isinstance(error, Unreadable | asyncpg.DataError | asyncpg.ProgramLimitExceededError | OverflowError)

"""Use that cannot be counted yet: its agency is locked, ahead of the clock, or not known to be enrolled.

The transaction that moves the offset stores the records. They, and the agency's later records, are counted in order.
"""

import time
from collections.abc import Iterable, Mapping, Sequence, Set

import asyncpg
import structlog
from aiokafka.errors import KafkaError

from muster_entitlements.handlers.usage import stranger
from muster_entitlements.repository import pools, usage_intake
from muster_entitlements.repository.usage_intake import StoredRecord
from muster_entitlements.workers.usage_batches import (
    BATCH_LOCK,
    BATCH_RECORDS,
    Batch,
    ParkedFull,
    count_or_park,
    require_room,
    writing,
)
from muster_entitlements.workers.usage_places import Lane
from muster_entitlements.workers.usage_strangers import Strangers
from muster_runtime.database.locks import LOCK, Lock
from muster_runtime.database.transactions import EVERY_AGENCY, RETRYABLE, UnitOfWork
from muster_runtime.errors import RetryableError, describe
from muster_runtime.service import Runtime

# How many records are deferred; the batch that reaches the limit may exceed it. Then later records wait on the topic.
MOST_DEFERRED = 100_000

# How long a deferred batch waits for its agency's lock. It is retried after each batch of the topic.
DEFERRED_LOCK = Lock(patience_seconds=0.05)

# A busy agency's transactions take its lock from one another, so only a duty's usual, long wait gets it. The others of
# the lane wait meanwhile, so the next long wait comes only after so many times as long. It comes at once if there are
# many records: once the limit is reached, the others would wait for good.
PAUSES = 9

# How long deferred records are counted between two batches of the topic.
COUNT_SECONDS = 0.5

LOGGED_AGENCIES = 10

_log = structlog.get_logger(__name__)


class DeferredFull(RetryableError):
    """The limit of deferred records is reached. Until some are counted, the lane waits."""


class Deferred:
    """The deferred records of a lane. `agencies` are those whose use is deferred, in the order of their turns."""

    def __init__(self, runtime: Runtime, lane: Lane) -> None:
        self._runtime = runtime
        self._lane = lane
        self._strangers = Strangers(runtime)
        self._refused: set[str] = set()  # agencies with records that cannot be parked for lack of room
        self._wait_long_at = 0.0
        self.agencies: dict[str, None] = {}

    async def read(self) -> None:
        """Read what is deferred from the database, which may have been rolled back."""
        async with self._runtime.database.connection() as connection:
            self.agencies = dict.fromkeys(
                await usage_intake.list_waited_for(connection, self._lane.number, self._lane.lanes)
            )
        self._refused &= self.agencies.keys()

    async def unknown(self, agencies: Set[str]) -> set[str]:
        """The agencies that are not enrolled. Records that name them take no lock, and wait for none."""
        if not agencies:
            return set()
        async with self._runtime.database.connection() as connection:
            return {*agencies} - await pools.find_enrolled(connection, agencies)

    def wait_for(self, agencies: Iterable[str]) -> None:
        """Defer the further records of these agencies."""
        self.agencies |= dict.fromkeys(sorted(agencies))

    async def add(self, uow: UnitOfWork, batch: Batch, waiting: Mapping[int, str]) -> None:
        """Defer records of a batch, each for an agency. Raises DeferredFull.

        Raises ParkedFull if some of them may have to be parked and there is no room.
        """
        if await usage_intake.count_deferred(uow.connection, MOST_DEFERRED) == MOST_DEFERRED:
            raise DeferredFull("usage records cannot be deferred: the limit of deferred records is reached")
        agencies = set(waiting.values())
        if agencies & self._refused or agencies - await pools.find_enrolled(uow.connection, agencies):
            await require_room(uow)
        deferred = [(batch.stored(place), agency_id) for place, agency_id in waiting.items()]
        await usage_intake.add_deferred(uow.connection, deferred, uow.now)
        _log.info("usage_deferred", records=len(waiting), agencies=sorted(agencies)[:LOGGED_AGENCIES])

    async def count(self) -> bool:
        """Count deferred records whose agencies' locks are free, until time is up; returns whether more can be."""
        until = time.monotonic() + COUNT_SECONDS
        unknown = await self.unknown(self.agencies.keys())
        more = await self._count_enrolled([each for each in self.agencies if each not in unknown], until)
        if unknown:
            try:
                await self._park_strangers(unknown)
            except (KafkaError, *RETRYABLE) as error:  # the others continue
                _log.warning("usage_unknown_agencies_wait", agencies=len(unknown), error=describe(error))
        return more

    async def _count_enrolled(self, agencies: Sequence[str], until: float) -> bool:
        """Count what can be counted at once and then, now and then, what needs a long wait."""
        busy = []
        for agency_id in agencies:
            if time.monotonic() > until:
                break
            if not await self._count(agency_id, DEFERRED_LOCK):
                busy.append(agency_id)
        if busy and time.monotonic() > self._wait_long_at:
            began = time.monotonic()
            counted = await self._count(busy[0], LOCK) and busy[0] not in self._refused
            if not (counted and self.agencies.keys() & {*busy} and await self._is_filling()):
                self._wait_long_at = time.monotonic() + PAUSES * (time.monotonic() - began)
        return not self.agencies.keys().isdisjoint({*agencies} - {*busy} - self._refused)

    async def _count(self, agency_id: str, lock: Lock) -> bool:
        """Count a batch of an agency's records; returns False if its lock is not available."""
        del self.agencies[agency_id]
        self.agencies[agency_id] = None  # next time, the others go first
        try:
            async with writing(self._runtime, {agency_id}, lock) as uow:
                batch = await Batch.read(await self._take(uow, {agency_id: None}))
                await count_or_park(uow, batch, batch.uses)
        except asyncpg.LockNotAvailableError:
            return False
        except ParkedFull:
            self._refused.add(agency_id)
            return True
        self._refused.discard(agency_id)
        if len(batch.records) < BATCH_RECORDS:
            del self.agencies[agency_id]
        return True

    async def _is_filling(self) -> bool:
        """Whether the deferred records take at least half of their room."""
        half = MOST_DEFERRED // 2
        async with self._runtime.database.connection() as connection:
            return await usage_intake.count_deferred(connection, half) == half

    async def _park_strangers(self, unknown: Set[str]) -> None:
        """Park the settled records of agencies that are still unknown."""
        settled = await self._strangers.settled(unknown)
        still = await self.unknown(settled.keys())
        if not still:
            return
        async with writing(self._runtime, {EVERY_AGENCY}, BATCH_LOCK) as uow:
            batch = await Batch.read(await self._take(uow, {agency_id: settled[agency_id] for agency_id in still}))
            batch.parked.update({place: stranger(use) for place, use in batch.uses.items()})
            await count_or_park(uow, batch, {})
            left = await usage_intake.list_waited_for(uow.connection, self._lane.number, self._lane.lanes)
        if len(batch.records) < BATCH_RECORDS:
            self._strangers.forget(still)
        for agency_id in still.difference(left):
            del self.agencies[agency_id]

    async def _take(self, uow: UnitOfWork, until: Mapping[str, int | None]) -> Sequence[StoredRecord]:
        lane = self._lane
        return await usage_intake.take_deferred(uow.connection, until, lane.number, lane.lanes, BATCH_RECORDS)

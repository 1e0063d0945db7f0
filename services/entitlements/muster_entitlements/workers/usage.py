"""The intake of the usage topic: its producers are not Muster's, and number nothing.

One transaction counts a batch, parks what cannot be counted, and stores where to go on. So a kill at any point counts
each event once; so do producers that send again, because an event counts once by its source and ID.

If the lock of an agency is held for longer, the same transaction defers its records, so that no other agency waits.
They are counted in their order once the lock can be had, and so is what comes after them. The same goes for an agency
ahead of the clock, which is counted alone, and for one that is not enrolled, until its enrollment would have been read.

The partitions are read in lanes: while one waits for the database, another reads records, here or in another process.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence, Set
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

import asyncpg
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Gauge

from muster_contracts.entitlements import FeatureUsed
from muster_entitlements.handlers.usage import stranger
from muster_entitlements.repository import pools, usage_intake
from muster_entitlements.workers.usage_batches import Batch, ParkedFull, count_or_park, require_room
from muster_entitlements.workers.usage_places import Places
from muster_entitlements.workers.usage_polling import FETCH_MIN_BYTES, POLL_MS, Poller
from muster_entitlements.workers.usage_strangers import Strangers
from muster_runtime.clock import MAX_SKEW
from muster_runtime.context import Context
from muster_runtime.database import locks
from muster_runtime.database.locks import Lock
from muster_runtime.database.transactions import EVERY_AGENCY, RETRYABLE, UnitOfWork
from muster_runtime.errors import RetryableError
from muster_runtime.identifiers import new_id
from muster_runtime.messaging.client_internals import enable_rebootstrap
from muster_runtime.messaging.lease import Lease
from muster_runtime.observability.telemetry import describe
from muster_runtime.service import Runtime, Worker

BATCH_RECORDS = 2_000

LANES = 2

# Until a failure is tried again, and a process asks again whether it is to read.
RETRY_SECONDS = 1.0
STANDBY_SECONDS = 0.5

# How often it looks whether the topic, and where it goes on, are still as they were: what comes would not show it.
LOOK_SECONDS = 5.0

# How long a batch waits for the locks of agencies: most transactions, and those of the other lanes, end sooner. What
# was deferred is tried again after each batch.
BATCH_LOCK = Lock(patience_seconds=0.5)
DEFERRED_LOCK = Lock(patience_seconds=0.05)

# How long what was deferred is counted between two batches.
DEFERRED_SECONDS = 0.5

LOGGED_AGENCIES = 10

USAGE_LAG = Gauge(
    "muster_usage_lag", "Records in this process's lanes of the usage topic that it has not read.", ["service", "lane"]
)

_DUTY = "usage-intake"

_log = structlog.get_logger(__name__)


class AgencyAhead(RetryableError):
    """One agency of several is ahead of the clock: it is counted alone, so that no other one gets its time."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One of so many lanes: the partitions whose numbers leave `number` when divided by `lanes`."""

    number: int
    lanes: int

    def has(self, partition: TopicPartition) -> bool:
        """Whether it reads a partition."""
        return partition.partition % self.lanes == self.number


# For all partitions.
_ALL = Lane(0, 1)


def usage_worker() -> Worker:
    """The worker of a process. Of several, one reads each lane."""

    async def run(runtime: Runtime) -> None:
        async with asyncio.TaskGroup() as lanes:
            for number in range(LANES):
                lanes.create_task(UsageIntake(runtime, Lane(number, LANES)).run())

    return Worker(_DUTY, run, usage_intake.find_oldest_deferred)


class UsageIntake:
    """Reads a lane of the topic while it holds the lane's lease."""

    def __init__(self, runtime: Runtime, lane: Lane = _ALL) -> None:
        self._runtime = runtime
        self._lane = lane
        self._topic = runtime.settings.topic_prefix + FeatureUsed.topic
        self._lease = Lease(runtime.database, f"{_DUTY}-{lane.number}", runtime.settings.instance)
        self._lag = USAGE_LAG.labels(runtime.service.name, str(lane.number))
        self._places = Places()
        self._enrolled: set[str] = set()
        self._strangers = Strangers(runtime)
        self._waited_for: dict[str, None] = {}  # the agencies for which records wait, in turn

    async def run(self) -> None:
        """Count what comes, until canceled."""
        try:
            while True:
                try:
                    if await self._lease.take():
                        await self._read()
                    else:
                        self._lag.set(0)  # another process reads the lane, and says how far it is
                        await asyncio.sleep(STANDBY_SECONDS)
                except (KafkaError, *RETRYABLE) as error:
                    _log.warning("usage_intake_retried", error=describe(error))
                    await self._lease.release()
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            await self._lease.release()

    async def _read(self) -> None:
        """Count batch after batch, each while the next one is fetched and read."""
        async with self._opened() as consumer:
            poller = Poller(self._runtime, consumer, self._places.next)
            look_at = 0.0
            following, more = asyncio.create_task(_fetch(poller)), False
            try:
                while await self._lease.take():
                    if time.monotonic() > look_at:  # where nothing comes, Kafka may be out of reach
                        self._lag.set(await self._places.look(self._runtime.database, consumer, self._topic))
                        look_at = time.monotonic() + LOOK_SECONDS
                    batch = await following
                    following = asyncio.create_task(_fetch(poller, wait=not more))
                    async with self._lease.renewed():
                        if batch.records:
                            await self.count(batch)
                        more = await self.count_deferred()
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[AIOKafkaConsumer]:
        """The client of the lane's partitions, which goes on where the database says."""
        settings = self._runtime.settings
        consumer = AIOKafkaConsumer(
            self._topic,
            **self._runtime.kafka.options(),
            client_id=f"{self._runtime.service.name}-usage-{self._lane.number}-{settings.instance}",
            enable_auto_commit=False,
            auto_offset_reset="none",  # what is lost is to be seen
            isolation_level="read_committed",  # a producer may use transactions, and abort them
            fetch_max_wait_ms=POLL_MS,
            fetch_min_bytes=FETCH_MIN_BYTES,
        )
        try:
            await consumer.start()
            enable_rebootstrap(consumer)
            read = {partition for partition in consumer.assignment() if self._lane.has(partition)}
            consumer.pause(*(consumer.assignment() - read))
            self._places = await Places.find(self._runtime.database, consumer, self._topic, read)
            async with self._runtime.database.connection() as connection:
                waited_for = await usage_intake.list_waited_for(connection, self._lane.number, self._lane.lanes)
            self._enrolled = set()  # the database may have gone back
            self._waited_for = dict.fromkeys(waited_for)
            for partition, offset in self._places.next.items():
                consumer.seek(partition, offset)
            yield consumer
        finally:
            await consumer.stop()

    async def count(self, batch: Batch) -> None:
        """Count a batch. Raises what is retryable, after which the client must be opened again."""
        self._waited_for |= dict.fromkeys(sorted(await self._unknown(batch.agencies)))
        try:
            await self._count(batch)
        except (asyncpg.LockNotAvailableError, AgencyAhead):
            agencies = batch.agencies - self._waited_for.keys()
            async with self._runtime.database.connection() as connection:
                held = agencies - await locks.free(connection, agencies)
                latest = await locks.latest(connection, agencies)
            ahead = {agency_id for agency_id, instant in latest.items() if self._is_ahead(instant)}
            self._waited_for |= dict.fromkeys(sorted(held | ahead))
            await self._count(batch)

    async def _unknown(self, agencies: Set[str]) -> set[str]:
        """Those of the agencies that are not enrolled: what names them takes no lock, and waits for none."""
        if new := agencies - self._enrolled:
            async with self._runtime.database.connection() as connection:
                self._enrolled |= await pools.find_enrolled(connection, new)
        return {*agencies} - self._enrolled

    def _is_ahead(self, instant: datetime) -> bool:
        clock = self._runtime.clock
        return not clock.virtual and instant > clock.now() + MAX_SKEW

    async def _count(self, batch: Batch) -> None:
        """Count what can be, and defer the records of agencies that wait. Raises AgencyAhead."""
        waiting = {place: use.agency_id for place, use in batch.uses.items() if use.agency_id in self._waited_for}
        counted = {place: use for place, use in batch.uses.items() if place not in waiting}
        agencies = {use.agency_id for use in counted.values()} or {EVERY_AGENCY}
        async with self._write(agencies, BATCH_LOCK) as uow:
            if len(agencies) > 1 and self._is_ahead(uow.now):
                raise AgencyAhead
            await self._places.move(uow, batch.after)
            await count_or_park(uow, batch, counted)
            if {*waiting.values()} - self._enrolled:
                await require_room(uow)  # those will be parked, if nobody enrolls them
            if waiting:
                deferred = [(batch.stored(place), agency_id) for place, agency_id in waiting.items()]
                await usage_intake.add_deferred(uow.connection, deferred, uow.now)
        self._places.next |= batch.after
        if waiting:
            _log.info("usage_deferred", records=len(waiting), agencies=sorted(set(waiting.values()))[:LOGGED_AGENCIES])

    async def count_deferred(self) -> bool:
        """Count deferred records until a lock cannot be had, or for a while; returns whether more can be counted."""
        until = time.monotonic() + DEFERRED_SECONDS
        unknown = await self._unknown(self._waited_for.keys())
        more = await self._count_enrolled([each for each in self._waited_for if each not in unknown], until)
        if unknown:
            try:
                await self._park_strangers(unknown)
            except (KafkaError, *RETRYABLE) as error:  # the others go on
                _log.warning("usage_strangers_wait", agencies=len(unknown), error=describe(error))
        return more

    async def _count_enrolled(self, agencies: Sequence[str], until: float) -> bool:
        full = False
        with suppress(asyncpg.LockNotAvailableError):
            for agency_id in agencies:
                if time.monotonic() > until:
                    return True
                try:
                    await self._count_deferred(agency_id)
                except ParkedFull:
                    full = True
            return not full and not self._waited_for.keys().isdisjoint(agencies)
        return False

    async def _count_deferred(self, agency_id: str) -> None:
        del self._waited_for[agency_id]
        self._waited_for[agency_id] = None  # the others come first next time
        async with self._write({agency_id}, DEFERRED_LOCK) as uow:
            batch = await self._take_deferred(uow, [agency_id])
            await count_or_park(uow, batch, batch.uses)
        if len(batch.records) < BATCH_RECORDS:
            del self._waited_for[agency_id]

    async def _park_strangers(self, unknown: Set[str]) -> None:
        """Park what names agencies that the service has not come to know by now, of those whose streams it has read."""
        if not (settled := await self._unknown(await self._strangers.settled(unknown))):
            return
        async with self._write({EVERY_AGENCY}, BATCH_LOCK) as uow:
            batch = await self._take_deferred(uow, settled)
            batch.parked.update({place: stranger(use) for place, use in batch.uses.items()})
            await count_or_park(uow, batch, {})
        if len(batch.records) < BATCH_RECORDS:
            for agency_id in settled:
                del self._waited_for[agency_id]

    async def _take_deferred(self, uow: UnitOfWork, agencies: Collection[str]) -> Batch:
        lane = self._lane
        return await Batch.read(
            await usage_intake.take_deferred(uow.connection, agencies, lane.number, lane.lanes, BATCH_RECORDS)
        )

    @asynccontextmanager
    async def _write(self, agencies: set[str], lock: Lock) -> AsyncIterator[UnitOfWork]:
        runtime = self._runtime
        context = Context(actor=runtime.service.name, correlation_id=new_id("cor", runtime.clock.now()))
        async with runtime.database.write(*sorted(agencies), context=context, lock=lock) as uow:
            yield uow


async def _fetch(poller: Poller, *, wait: bool = True) -> Batch:
    """The next batch, which is empty if nothing comes, or has come where that is not waited for."""
    parts = await poller.poll(BATCH_RECORDS, POLL_MS if wait else 0)
    after = {partition: part[-1].offset + 1 for partition, part in parts.items()}
    return await Batch.read([record for part in parts.values() for record in part], after)

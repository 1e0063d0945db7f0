"""The intake of the usage topic. Its producers are outside Muster, and their events have no sequence.

One transaction counts a batch, parks what cannot be counted, and stores where to continue. So each event counts once,
even after a kill at any point. If a producer sends an event again, it still counts once, by its source and ID.

If an agency's lock stays held, the same transaction defers the agency's records, so that no other agency waits. They,
and the records after them, are counted in order once the lock is free. The records of an agency ahead of the clock are
also deferred, and counted alone. Those of an agency that is not enrolled are deferred until its enrollment would have
been read.

The partitions are read in lanes: while one waits for the database, another reads records, here or in another process.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from prometheus_client import Gauge

from muster_contracts.entitlements import FeatureUsed
from muster_entitlements.workers.usage_batches import BATCH_LOCK, BATCH_RECORDS, Batch, count_or_park, writing
from muster_entitlements.workers.usage_deferred import Deferred
from muster_entitlements.workers.usage_places import ALL, Lane, Places
from muster_entitlements.workers.usage_polling import IDLE_POLL_MS, POLL_MS, PartitionsChanged, Poller
from muster_runtime.canceling import is_canceled, run_together
from muster_runtime.clock import is_ahead
from muster_runtime.database import locks
from muster_runtime.database.transactions import EVERY_AGENCY, RETRYABLE
from muster_runtime.errors import RetryableError, describe
from muster_runtime.messaging.client_closing import close_consumer
from muster_runtime.messaging.client_internals import assignment_of, enable_rebootstrap
from muster_runtime.messaging.lease import Lease
from muster_runtime.service import Runtime

LANES = 2

# How long until a failure is retried, and until a standby process tries to take the lease again.
RETRY_SECONDS = 1.0
STANDBY_SECONDS = 0.5

# How often to check that the topic and the stored offsets are unchanged: the records that arrive would not show it.
LOOK_SECONDS = 5.0

USAGE_LAG = Gauge(
    "muster_usage_lag",
    "Records in this process's lanes of the usage topic that it has not read yet.",
    ["service", "lane"],
)

_log = structlog.get_logger(__name__)


class BatchAhead(RetryableError):
    """One agency of several is ahead of the clock. It is counted alone, so that the others do not get its time."""


async def run(runtime: Runtime) -> None:
    """Read the lanes until canceled. Of several processes, one reads each lane."""
    await run_together(*(UsageIntake(runtime, Lane(number, LANES)).run() for number in range(LANES)))


class UsageIntake:
    """Reads a lane of the topic while it holds the lane's lease."""

    def __init__(self, runtime: Runtime, lane: Lane = ALL) -> None:
        self._runtime = runtime
        self._lane = lane
        self._topic = runtime.settings.topic_prefix + FeatureUsed.topic
        self._lease = Lease(runtime.database, f"usage-intake-{lane.number}", runtime.settings.instance)
        self._lag = USAGE_LAG.labels(runtime.service.name, str(lane.number))
        self._places = Places()
        self.deferred = Deferred(runtime, lane)

    async def run(self) -> None:
        """Count records until canceled."""
        try:
            while not is_canceled():
                try:
                    if await self._lease.take():
                        await self._read()
                    else:
                        self._lag.set(0)  # another process reads the lane, and reports its lag
                        await asyncio.sleep(STANDBY_SECONDS)
                except (KafkaError, *RETRYABLE) as error:
                    _log.warning("usage_intake_retried", error=describe(error))
                    await self._lease.release()
                    if not is_canceled():
                        await asyncio.sleep(RETRY_SECONDS)
        finally:
            await self._lease.release()

    async def _read(self) -> None:
        """Count batch after batch, each while the next one is fetched and read."""
        async with self._opened() as consumer:
            poller = Poller(self._runtime, consumer, self._places.next)
            look_at = 0.0
            async with self._lease.renewed():
                more = await self.deferred.count()  # a batch that cannot be deferred may wait for this
            following = asyncio.create_task(_fetch(poller, self._patience(more)))
            try:
                while await self._lease.take():
                    async with self._lease.renewed():
                        if time.monotonic() > look_at:  # if no records arrive, Kafka may be unreachable
                            self._lag.set(await self._places.look(self._runtime.database, consumer, self._topic))
                            look_at = time.monotonic() + LOOK_SECONDS
                        batch = await following
                        following = asyncio.create_task(_fetch(poller, self._patience(more)))
                        if batch.after:
                            await self.count(batch)
                        more = await self.deferred.count()
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    def _patience(self, more: bool) -> int:
        """How many milliseconds to wait for records, if `more` or other deferred ones are to be counted meanwhile."""
        if more:
            return 0
        return POLL_MS if self.deferred.agencies else IDLE_POLL_MS

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[AIOKafkaConsumer]:
        """The client for the lane's partitions, positioned where the database says."""
        settings = self._runtime.settings
        consumer = AIOKafkaConsumer(
            self._topic,
            **self._runtime.kafka.options(),
            client_id=f"{self._runtime.service.name}-usage-{self._lane.number}-{settings.instance}",
            enable_auto_commit=False,
            auto_offset_reset="none",  # lost records must be noticed
            isolation_level="read_committed",  # a producer may use transactions, and abort them
            fetch_max_wait_ms=IDLE_POLL_MS,
            metadata_max_age_ms=int(LOOK_SECONDS * 1000),  # only metadata shows new partitions
        )
        try:
            await consumer.start()
            enable_rebootstrap(consumer)
            assigned = assignment_of(consumer)
            read = {partition for partition in consumer.assignment() if self._lane.has(partition)}
            consumer.pause(*(consumer.assignment() - read))
            self._places = await Places.find(self._runtime.database, self._runtime.group, consumer, self._topic, read)
            await self.deferred.read()
            for partition, offset in self._places.next.items():
                consumer.seek(partition, offset)
            if assignment_of(consumer) is not assigned:  # the topic's partitions have changed meanwhile
                raise PartitionsChanged
            yield consumer
        finally:
            await close_consumer(consumer)

    async def count(self, batch: Batch) -> None:
        """Count a batch. Raises what is retryable, after which the client must be opened again."""
        deferred = self.deferred
        deferred.wait_for(await deferred.unknown(batch.agencies))
        try:
            await self._count(batch)
        except (asyncpg.LockNotAvailableError, BatchAhead):
            agencies = batch.agencies - deferred.agencies.keys()
            async with self._runtime.database.connection() as connection:
                held = agencies - await locks.free(connection, agencies)
                latest = await locks.latest(connection, agencies)
            clock = self._runtime.clock
            ahead = {agency_id for agency_id, instant in latest.items() if is_ahead(instant, clock)}
            deferred.wait_for(held | ahead)
            await self._count(batch)

    async def _count(self, batch: Batch) -> None:
        """Count what can be counted, and defer the records of agencies that wait. Raises BatchAhead."""
        waiting = {p: use.agency_id for p, use in batch.uses.items() if use.agency_id in self.deferred.agencies}
        counted = {place: use for place, use in batch.uses.items() if place not in waiting}
        agencies = {use.agency_id for use in counted.values()} or {EVERY_AGENCY}
        async with writing(self._runtime, agencies, BATCH_LOCK) as uow:
            if len(agencies) > 1 and is_ahead(uow.now, self._runtime.clock):
                raise BatchAhead
            await self._places.move(uow, batch.after)
            await count_or_park(uow, batch, counted)
            if waiting:
                await self.deferred.add(uow, batch, waiting)
        self._places.next |= batch.after


async def _fetch(poller: Poller, wait_ms: int = IDLE_POLL_MS) -> Batch:
    """The next batch; it is empty if no records arrive in time."""
    parts = await poller.poll(BATCH_RECORDS, wait_ms)
    return await Batch.read([record for part in parts.values() for record in part], poller.after)

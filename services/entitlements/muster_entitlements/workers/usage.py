"""The intake of the usage topic: its producers are not Muster's, and number nothing.

One transaction counts a batch, parks what cannot be counted, and stores where to go on. So a kill at any point counts
each event once; so do producers that send again, because an event counts once by its source and ID.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from muster_contracts.entitlements import FeatureUsed
from muster_entitlements.domain.usage import Use, read_record
from muster_entitlements.handlers.usage import count_uses
from muster_entitlements.repository import usage_intake
from muster_entitlements.repository.usage_intake import ParkedUsage
from muster_runtime.context import Context
from muster_runtime.database.transactions import EVERY_AGENCY, RETRYABLE, Connection
from muster_runtime.errors import InvalidInput, RetryableError
from muster_runtime.identifiers import new_id
from muster_runtime.messaging.client_internals import enable_rebootstrap
from muster_runtime.messaging.lease import Lease
from muster_runtime.messaging.parking import printable
from muster_runtime.messaging.topic_log import Record
from muster_runtime.observability.telemetry import describe
from muster_runtime.service import Runtime, Worker

BATCH_RECORDS = 2_000
POLL_MS = 200

# Until a failure is tried again, and a process asks again whether it is to read.
RETRY_SECONDS = 1.0
STANDBY_SECONDS = 0.5

_DUTY = "usage-intake"

_log = structlog.get_logger(__name__)

Batch = Mapping[TopicPartition, list[Record]]


class _OffsetsMoved(RetryableError):
    """Another process has read further, or the database has gone back: read from where it says."""


async def _nothing_due(_connection: Connection) -> datetime | None:
    return None


def usage_worker() -> Worker:
    """The worker of a process. Of several, one reads."""

    async def run(runtime: Runtime) -> None:
        await UsageIntake(runtime).run()

    return Worker(_DUTY, run, _nothing_due)


class UsageIntake:
    """Reads the topic while it holds the lease."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lease = Lease(runtime.database, _DUTY, runtime.settings.instance)
        self._next: dict[TopicPartition, int] = {}

    async def run(self) -> None:
        """Count what comes, until canceled."""
        try:
            while True:
                try:
                    if await self._lease.take():
                        await self._read()
                    else:
                        await asyncio.sleep(STANDBY_SECONDS)
                except (KafkaError, *RETRYABLE) as error:
                    _log.warning("usage_intake_retried", error=describe(error))
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            await self._lease.release()

    async def _read(self) -> None:
        async with self._opened() as consumer:
            while await self._lease.take():
                batch = await consumer.getmany(timeout_ms=POLL_MS, max_records=BATCH_RECORDS)
                if batch:
                    async with self._lease.renewed():
                        await self.count(batch)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[AIOKafkaConsumer]:
        """The client of all partitions, which goes on where the database says."""
        settings = self._runtime.settings
        consumer = AIOKafkaConsumer(
            settings.topic_prefix + FeatureUsed.topic,
            **self._runtime.kafka.options(),
            client_id=f"{self._runtime.service.name}-usage-{settings.instance}",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",  # a producer may use transactions, and abort them
            fetch_max_wait_ms=POLL_MS,
        )
        try:
            await consumer.start()
            enable_rebootstrap(consumer)
            async with self._runtime.database.connection() as connection:
                stored = await usage_intake.find_offsets(connection)
            self._next = {p: stored.get((FeatureUsed.topic, p.partition), 0) for p in consumer.assignment()}
            for partition, offset in self._next.items():
                consumer.seek(partition, offset)
            yield consumer
        finally:
            await consumer.stop()

    async def count(self, batch: Batch) -> None:
        """Count a batch. Raises what is retryable, after which the client must be opened again."""
        records = [record for part in batch.values() for record in part]
        uses: dict[int, Use] = {}
        parked: dict[int, InvalidInput] = {}
        for place, record in enumerate(records):
            try:
                uses[place] = read_record(record.headers, record.value)
            except InvalidInput as refusal:
                parked[place] = refusal
        agencies = {use.agency_id for use in uses.values()} or {EVERY_AGENCY}
        after = {partition: part[-1].offset + 1 for partition, part in batch.items()}
        moves = {(FeatureUsed.topic, p.partition): (self._next[p], offset) for p, offset in after.items()}
        now = self._runtime.clock.now()
        context = Context(actor=self._runtime.service.name, correlation_id=new_id("cor", now))
        async with self._runtime.database.write(*agencies, context=context) as uow:
            if not await usage_intake.save_offsets(uow.connection, moves):
                raise _OffsetsMoved(f"the usage topic was read further, or the database has gone back: {moves}")
            tally = await count_uses(uow, uses)
            parked |= tally.refused
            if parked:
                refused = [_parked(records[place], parked[place]) for place in sorted(parked)]
                await usage_intake.add_parked(uow.connection, refused, uow.now)
        self._next |= after
        if parked:
            _log.warning("usage_parked", records=len(parked))


def _parked(record: Record, refusal: InvalidInput) -> ParkedUsage:
    return ParkedUsage(
        topic=FeatureUsed.topic,
        kafka_partition=record.partition,
        kafka_offset=record.offset,
        key=record.key,
        headers=record.headers,
        value=record.value,
        reason=printable(refusal.detail),
    )

"""The relay: publishes the outbox's runs to Kafka in id order and deletes them once acknowledged.

If it dies between the acknowledgement and the delete, or runs twice, events repeat on the topic with
the same ids and sequences; none is lost and none overtakes another of its stream.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder

from muster_contracts import Envelope, event_id, source_of, write_run_headers
from muster_runtime.alarm import Alarm
from muster_runtime.db import RETRYABLE, Database
from muster_runtime.lease import Lease
from muster_runtime.restored import DatabaseRestored, refuse_restored
from muster_runtime.telemetry import RELAYED, describe

# What one read takes at the most: runs, and the events in them.
READ_RUNS = 500
READ_EVENTS = 10_000

# After a failure, and while an operator is waited for.
RETRY_SECONDS = 0.5
RESTORED_SECONDS = 5.0

# How long the producer may take to close, and the lease to be given back.
CLOSE_SECONDS = 2

# A client that has lost an answer for good must not hold the outbox: after so long a new one sends all again.
SEND_SECONDS = 120

# Deleted payloads pile up in the table's TOAST until a vacuum: after so many events, the relay runs one.
VACUUM_AFTER_EVENTS = 200_000

# Never `id > last`: a run that commits late has a low id, and is simply read later.
_READ = """
select
    id, topic, agency_id, epoch, first_sequence, type, time, correlation_id, causation_id, traceparent,
    keys, payloads, events
from outbox
where id in (
    select id
    from (
        select id, sum(events) over (order by id) - events as before
        from (
            select id, events
            from outbox
            where id <> all($1::bigint[])
            order by id
            limit $2
        ) as head
    ) as counted
    where before < $3
)
order by id
"""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Runs that are sent together, then deleted together."""

    ids: list[int]
    events: int
    runs: Sequence[Any]


class Relay:
    """Drains one service's outbox while it holds the lease."""

    def __init__(
        self,
        database: Database,
        alarm: Alarm,
        *,
        service: str,
        holder: str,
        bootstrap: str,
        topics: Sequence[str],
        topic_prefix: str = "",
    ) -> None:
        self._database = database
        self._alarm = alarm
        self._service = service
        self._lease = Lease(database, "relay", holder)
        self._bootstrap = bootstrap
        self._topics = topics
        self._topic_prefix = topic_prefix
        self._producer: AIOKafkaProducer | None = None
        self._trusted: datetime | None = None  # the server that was found to have lost no commits
        self._deleted_since_vacuum = 0
        self.held: str | None = None  # why it cannot relay, where it cannot
        self.relayed = 0

    async def run(self) -> None:
        """Relay until cancelled. On any failure: a new producer, and all that is left is read again."""
        try:
            while True:
                try:
                    idle = not await self._lease.take() or not await self._drain()
                    self.held = None
                    if idle:
                        await self._alarm.wait()
                except (KafkaError, *RETRYABLE) as error:
                    self.held = describe(error)
                    _log.warning("relay_failed", error=repr(error))
                    self._trusted = None
                    await self._close_producer()
                    await self._release()  # another process may have better luck
                    await asyncio.sleep(RESTORED_SECONDS if isinstance(error, DatabaseRestored) else RETRY_SECONDS)
        finally:
            await self._close_producer()
            await self._release()

    async def _drain(self) -> int:
        """Relay until the outbox is empty or the lease is lost; reading and deleting overlap sending."""
        relayed = 0
        batch = await self._read(in_flight=[])
        await self._trust_server()
        deleting: asyncio.Task[None] | None = None
        deleting_ids: list[int] = []
        try:
            while batch.ids:
                sending = asyncio.ensure_future(self._send(batch))
                try:
                    following = await self._read(in_flight=batch.ids + deleting_ids)
                finally:
                    await sending
                if deleting is not None:
                    await deleting
                deleting, deleting_ids = asyncio.ensure_future(self._delete(batch)), batch.ids
                relayed += batch.events
                if not await self._lease.take():
                    break
                batch = following
                await self._trust_server()
        finally:
            if deleting is not None:
                await deleting
        await self._vacuum_when_due()
        return relayed

    async def _read(self, in_flight: Sequence[int]) -> _Batch:
        runs = await self._database.pool.fetch(_READ, in_flight, READ_RUNS, READ_EVENTS)
        return _Batch([run["id"] for run in runs], sum(run["events"] for run in runs), runs)

    async def _delete(self, batch: _Batch) -> None:
        await self._database.pool.execute("delete from outbox where id = any($1::bigint[])", batch.ids)
        self.relayed += batch.events
        self._deleted_since_vacuum += batch.events
        for run in batch.runs:
            RELAYED.labels(self._service, run["topic"]).inc(run["events"])

    async def _send(self, batch: _Batch) -> None:
        """Send a batch and wait until every event of it is acknowledged by all in-sync replicas."""
        producer = self._producer or await self._open_producer()
        builders: dict[tuple[str, int], list[BatchBuilder]] = {}
        for run in batch.runs:
            topic = self._topic_prefix + run["topic"]
            partitions = await producer.partitions_for(topic)
            partition = partition_of(run["agency_id"].encode(), len(partitions))
            _fill(builders.setdefault((topic, partition), []), producer, run)
        sends = [
            self._send_in_order(producer, topic, partition, chain) for (topic, partition), chain in builders.items()
        ]
        async with asyncio.timeout(SEND_SECONDS):
            outcomes = await asyncio.gather(*sends, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    @staticmethod
    async def _send_in_order(
        producer: AIOKafkaProducer, topic: str, partition: int, chain: Sequence[BatchBuilder]
    ) -> None:
        for builder in chain:
            builder.close()
            await (await producer.send_batch(builder, topic, partition=partition))

    async def _trust_server(self) -> None:
        """Before anything is sent that was read from another server, or another life of it: has it lost commits?"""
        server = self._database.server
        if server != self._trusted:
            await refuse_restored(self._database, self._bootstrap, self._topic_prefix, self._topics)
            self._trusted = server

    async def _open_producer(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            client_id=f"{self._service}-relay",
            acks="all",
            enable_idempotence=True,
            compression_type="snappy",
            max_batch_size=1_000_000,
            linger_ms=0,
        )
        self._producer = producer  # first, so that one whose start fails is closed as well
        await producer.start()
        return producer

    async def _close_producer(self) -> None:
        """Close the producer: an out-of-order error would stick to it for ever."""
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await producer.stop()
            except (KafkaError, OSError) as error:
                _log.warning("producer_close_failed", error=repr(error))

    async def _release(self) -> None:
        with suppress(*RETRYABLE):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._lease.release()

    async def _vacuum_when_due(self) -> None:
        if self._deleted_since_vacuum >= VACUUM_AFTER_EVENTS:
            self._deleted_since_vacuum = 0
            await self._database.pool.execute("vacuum outbox")


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, as Kafka's Java client computes it."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def _fill(chain: list[BatchBuilder], producer: AIOKafkaProducer, run: Any) -> None:
    """Append a run's events to the last batch of a partition's chain, and to new ones as they fill."""
    first = Envelope(
        id=event_id(run["topic"], run["agency_id"], run["epoch"], run["first_sequence"]),
        source=source_of(run["topic"]),
        type=run["type"],
        time=run["time"],
        agency_id=run["agency_id"],
        epoch=run["epoch"],
        sequence=run["first_sequence"],
        correlation_id=run["correlation_id"],
        causation_id=run["causation_id"],
        traceparent=run["traceparent"],
    )
    agency_key = run["agency_id"].encode()
    keys = run["keys"]
    payloads = run["payloads"]
    for index, headers in enumerate(write_run_headers(first, run["topic"], len(payloads))):
        key = agency_key if keys is None else keys[index].encode()
        record = {"key": key, "value": payloads[index], "timestamp": None, "headers": headers}
        if not chain or chain[-1].append(**record) is None:
            chain.append(producer.create_batch())
            if chain[-1].append(**record) is None:
                raise RuntimeError(f"an event of run {run['id']} is larger than a Kafka batch")

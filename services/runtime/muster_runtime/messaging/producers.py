"""Idempotent Kafka producers that send a partition's batches one at a time and always close completely.

A producer with a transactional ID is fenced: once another starts with the same ID, Kafka rejects what the first sends.
A topic of facts needs no fencing, because readers skip what they have applied. A compacted topic keeps only the last
record of each key, so a late duplicate there would replace newer state.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder

from muster_contracts import Envelope, event_id, source_of, write_run_headers
from muster_runtime.messaging.client_closing import ProducerCloser
from muster_runtime.messaging.client_internals import enable_rebootstrap
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.kafka_topics import TopicRepartitioned
from muster_runtime.pacing import Pace

# The size of a batch before compression, unless one event is larger. Compressed, a batch must fit into one partition's
# share of a consumer's fetch: the broker returns a larger batch only for the first partition of a fetch.
BATCH_BYTES = 640_000

# How long the client may take to get its producer ID.
START_SECONDS = 30

# How often the client asks for the leaders of partitions that have none.
REFRESH_SECONDS = 1.0

# Encoded records of one partition, in order.
Batches = Sequence[BatchBuilder]


class Producer:
    """A Kafka client that sends runs of events.

    `partitions` maps each topic to the number of partitions it must have.
    """

    def __init__(
        self, kafka: KafkaConnection, client_id: str, partitions: Mapping[str, int], transactional_id: str | None = None
    ) -> None:
        self._partitions = partitions
        self.is_fenced = transactional_id is not None
        self._kafka = AIOKafkaProducer(
            **kafka.options(),
            client_id=client_id,
            acks="all",
            enable_idempotence=True,
            transactional_id=transactional_id,
            compression_type="snappy",
            max_batch_size=BATCH_BYTES,
            linger_ms=0,
        )
        enable_rebootstrap(self._kafka)
        self._closer = ProducerCloser(self._kafka)
        self._asked_at = time.monotonic()

    async def start(self) -> None:
        """Connect. A fenced producer also shuts out all earlier ones with its ID. Raises KafkaError or TimeoutError.

        Without the timeout, the client would ask forever while no broker can assign it a producer ID.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._kafka.start()
        except TimeoutError:
            raise TimeoutError(f"Kafka has not given the producer an id within {START_SECONDS} s") from None

    async def close(self) -> None:
        """Close all connections and end all tasks. Whether batches in flight arrive is unknown."""
        await self._closer.close()

    async def partition_of(self, topic: str, key: bytes) -> TopicPartition:
        """The partition of a key.

        Raises KafkaError if the topic does not exist, and TopicRepartitioned if its number of partitions is wrong.
        """
        self._kafka.client.add_topic(topic)  # `partitions_for` does not if the topic is known
        partitions = len(await self._kafka.partitions_for(topic))
        if partitions != self._partitions[topic]:
            raise TopicRepartitioned(topic, partitions, self._partitions[topic])
        return TopicPartition(topic, partition_of(key, partitions))

    def has_leader(self, partition: TopicPartition) -> bool:
        """Whether the partition has a leader to send to. If not, the client refreshes its metadata.

        It refreshes only the topics that it tracks, so it also tracks this one from then on.
        """
        if self._kafka.client.cluster.leader_for_partition(partition) not in (None, -1):
            return True
        if time.monotonic() > self._asked_at + REFRESH_SECONDS:
            self._asked_at = time.monotonic()
            self._kafka.client.add_topic(partition.topic)
            self._kafka.client.force_metadata_update()
        return False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Commit what a fenced producer sends within the block; for any other producer, do nothing.

        If the block fails, close the producer: the next one with its ID aborts the open transaction.
        """
        if not self.is_fenced:
            yield
            return
        await self._kafka.begin_transaction()
        yield
        await self._kafka.commit_transaction()

    async def encode(self, runs: Sequence[Any]) -> Batches:
        """Encode runs of one partition into batches. The client compresses them when it sends."""
        batches: list[BatchBuilder] = []
        pace = Pace()
        for run in runs:
            await pace.keep()
            _fill(batches, self._kafka, run)
        for batch in batches:
            await pace.keep()
            batch.close()
        return batches

    async def send(self, partition: TopicPartition, batches: Batches) -> None:
        """Send batches in order, and wait until all in-sync replicas have each event. Raises KafkaError."""
        for batch in batches:
            await (await self._kafka.send_batch(batch, partition.topic, partition=partition.partition))


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, as Kafka's Java client computes it."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def _fill(batches: list[BatchBuilder], producer: AIOKafkaProducer, run: Any) -> None:
    """Append a run's events to the last batch, and to new batches as they fill."""
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
        if not batches or batches[-1].append(**record) is None:
            batches.append(producer.create_batch())
            if batches[-1].append(**record) is None:
                raise RuntimeError(f"an event of run {run['id']} is larger than a Kafka batch")

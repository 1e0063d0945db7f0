"""Reads the event log as an outsider does: raw records from Kafka, including duplicates."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from muster_contracts import Envelope, read_headers, topics
from muster_contracts.clock import ClockMoved
from muster_runtime.messaging.client_closing import close_consumer
from muster_runtime.messaging.connection import KafkaConnection

Stream = tuple[str, str]  # topic, agency


@dataclass(frozen=True, slots=True)
class Fact:
    """An event in the log; `data` is None for an erasure."""

    topic: str
    envelope: Envelope
    data: dict[str, Any] | None

    @property
    def stream(self) -> Stream:
        """The stream that the event's sequence counts in."""
        return self.topic, self.envelope.agency_id

    @property
    def name(self) -> str:
        """The short name of the type: `AgencyEnrolled` for `muster.enrollment.AgencyEnrolled.v1`."""
        return self.envelope.type.split(".")[-2]


async def read_all(kafka: KafkaConnection, topic_prefix: str) -> list[Fact]:
    """Every event in the log up to now, partition by partition, each in order."""
    facts: list[Fact] = []
    async with _reader(kafka, topic_prefix) as (consumer, partitions):
        ends = await consumer.end_offsets(partitions)
        waiting = {partition for partition, end in ends.items() if end > 0}
        by_partition: dict[TopicPartition, list[Fact]] = {partition: [] for partition in waiting}
        while waiting:
            for partition, records in (await consumer.getmany(timeout_ms=200)).items():
                by_partition.setdefault(partition, []).extend(_fact(record, topic_prefix) for record in records)
            waiting = {p for p in waiting if await consumer.position(p) < ends[p]}
        for partition in sorted(by_partition):
            facts.extend(by_partition[partition])
    return facts


async def follow(kafka: KafkaConnection, topic_prefix: str, tell: Callable[[Fact], None]) -> None:
    """Call `tell` with every event, from the first one and as new ones arrive, until canceled."""
    async with _reader(kafka, topic_prefix) as (consumer, _):
        while True:
            for records in (await consumer.getmany(timeout_ms=1000, max_records=500)).values():
                for record in records:
                    tell(_fact(record, topic_prefix))


@asynccontextmanager
async def _reader(
    kafka: KafkaConnection, topic_prefix: str
) -> AsyncIterator[tuple[AIOKafkaConsumer, list[TopicPartition]]]:
    partitions = [
        TopicPartition(topic_prefix + topic.name, partition)
        for topic in topics().values()
        if topic.name != ClockMoved.topic
        for partition in range(topic.partitions)
    ]
    consumer = AIOKafkaConsumer(
        **kafka.options(), enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=200
    )
    await consumer.start()
    try:
        consumer.assign(partitions)
        yield consumer, partitions
    finally:
        await close_consumer(consumer)


def _fact(record: ConsumerRecord[bytes, bytes], topic_prefix: str) -> Fact:
    return Fact(
        topic=record.topic.removeprefix(topic_prefix),
        envelope=read_headers(record.headers),
        data=None if record.value is None else json.loads(record.value),
    )

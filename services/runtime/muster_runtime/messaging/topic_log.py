"""Reads topics raw, from their beginning or near their end up to their current end. Joins no group, commits nothing."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from muster_runtime.messaging.client_closing import close_consumer
from muster_runtime.messaging.connection import KafkaConnection

Record = ConsumerRecord[bytes, bytes]

_BATCH_RECORDS = 2_000


class TopicLog:
    """Some topics, named without a prefix. `consumer` is the client that reads them."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self.consumer = consumer
        self.partitions = sorted(consumer.assignment())

    @classmethod
    @asynccontextmanager
    async def open(cls, kafka: KafkaConnection, topic_prefix: str, names: Iterable[str]) -> AsyncIterator["TopicLog"]:
        """Open those of the topics that exist, positioned at their beginning. Raises KafkaError."""
        consumer = AIOKafkaConsumer(
            *(topic_prefix + name for name in names),
            **kafka.options(),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
        )
        try:
            await consumer.start()
            yield cls(consumer)
        finally:
            await close_consumer(consumer)

    async def bounds(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        """The current beginning and end of each of these partitions, as offsets."""
        if not partitions:
            return {}
        ends = await self.consumer.end_offsets(partitions)
        beginnings = await self.consumer.beginning_offsets(partitions)
        return {partition: (beginnings[partition], end) for partition, end in ends.items()}

    async def seek_to_tail(self, partitions: Collection[TopicPartition], records: int) -> None:
        """Continue this many offsets before the end of each of these partitions."""
        for partition, (beginning, end) in (await self.bounds(partitions)).items():
            self.consumer.seek(partition, max(beginning, end - records))

    async def unread(self) -> int:
        """How many offsets lie between the current position and the current end."""
        ends = await self.consumer.end_offsets(self.partitions)
        return sum([ends[partition] - await self.consumer.position(partition) for partition in self.partitions])

    async def batches(self, *partitions: TopicPartition) -> AsyncIterator[list[Record]]:
        """The records from the current position up to the current end, each partition in order.

        By default, reads all partitions. Raises KafkaError, or the client's error for bytes that it cannot decode.
        """
        async for records in self._read_to(await self.consumer.end_offsets(partitions or self.partitions)):
            yield records

    async def between(self, partition: TopicPartition, first: int, end: int) -> AsyncIterator[list[Record]]:
        """The partition's records from the offset `first` up to but not including `end`. Raises like `batches`."""
        self.consumer.seek(partition, first)
        async for records in self._read_to({partition: end}):
            yield [record for record in records if record.offset < end]

    async def _read_to(self, ends: Mapping[TopicPartition, int]) -> AsyncIterator[list[Record]]:
        while left := [partition for partition, end in ends.items() if await self.consumer.position(partition) < end]:
            read = await self.consumer.getmany(*left, timeout_ms=500, max_records=_BATCH_RECORDS)
            for records in read.values():
                yield records

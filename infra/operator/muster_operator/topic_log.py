"""Topics read raw, from their beginning to where they end now: for an operator's checks and rebuilds."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

_BATCH_RECORDS = 2_000


class TopicLog:
    """Some topics, named without their prefix."""

    def __init__(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        self._consumer = consumer
        self._partitions = partitions

    @classmethod
    @asynccontextmanager
    async def open(cls, bootstrap: str, topic_prefix: str, names: Iterable[str]) -> AsyncIterator["TopicLog"]:
        """Open the topics that are there; it belongs to no group and leaves no trace."""
        consumer = AIOKafkaConsumer(
            *(topic_prefix + name for name in names),
            bootstrap_servers=bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
        )
        await consumer.start()
        try:
            yield cls(consumer, sorted(consumer.assignment()))
        finally:
            await consumer.stop()

    async def unread(self) -> int:
        """How many offsets lie between where it was read before and the present end."""
        ends = await self._consumer.end_offsets(self._partitions)
        return sum([ends[partition] - await self._consumer.position(partition) for partition in self._partitions])

    async def batches(self) -> AsyncIterator[list[ConsumerRecord[bytes, bytes]]]:
        """What is there from where it was read before, partition by partition in order, up to the present end."""
        ends = await self._consumer.end_offsets(self._partitions)
        left = [
            partition for partition in self._partitions if await self._consumer.position(partition) < ends[partition]
        ]
        while left:
            read = await self._consumer.getmany(*left, timeout_ms=500, max_records=_BATCH_RECORDS)
            for records in read.values():
                yield records
            left = [partition for partition in left if await self._consumer.position(partition) < ends[partition]]

"""Reads topics raw, from their beginning or near their end up to their current end. Joins no group, commits nothing.

It skips what the client cannot decode, because one such record must not hide the others from an operator.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException, KafkaError

from muster_runtime.messaging.bounded_decoding import decompressing_at_most
from muster_runtime.messaging.client_closing import close_consumer
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.offsets import Partition
from muster_runtime.messaging.passing import OffsetRange

Record = ConsumerRecord[bytes, bytes]

_BATCH_RECORDS = 2_000

# The most that one poll decompresses, and about the size of the records that are read one by one. The relay's batches
# are far smaller; another program's need not be.
MOST_BYTES = 16 * 1024 * 1024


class _Undecodable(Exception):
    """The client cannot decode a record, or its batch is too large. It has discarded what it took with that record."""


class TopicLog:
    """Some topics, named without their `topic_prefix`. `consumer` is the client that reads them.

    `unreadable` has the offsets that were skipped because the client cannot decode what is there, except those that an
    operator has `passed`.
    """

    def __init__(self, consumer: AIOKafkaConsumer, topic_prefix: str, passed: Collection[OffsetRange]) -> None:
        self.consumer = consumer
        self.partitions = sorted(consumer.assignment())
        self.unreadable: list[OffsetRange] = []
        self.topic_prefix = topic_prefix
        self.passed = passed

    @classmethod
    @asynccontextmanager
    async def open(
        cls, kafka: KafkaConnection, topic_prefix: str, names: Iterable[str], passed: Collection[OffsetRange] = ()
    ) -> AsyncIterator["TopicLog"]:
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
            yield cls(consumer, topic_prefix, passed)
        finally:
            await close_consumer(consumer)

    def place(self, partition: TopicPartition) -> Partition:
        """A partition with the contract's name of its topic."""
        return partition.topic.removeprefix(self.topic_prefix), partition.partition

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

    @property
    def skipped(self) -> int:
        """How many offsets are in `unreadable`."""
        return sum(each.last_offset - each.first_offset + 1 for each in self.unreadable)

    async def batches(self, *partitions: TopicPartition) -> AsyncIterator[list[Record]]:
        """The records from the current position up to the current end, each partition in order.

        By default, reads all partitions. Raises KafkaError.
        """
        async for records in self._read_to(await self.consumer.end_offsets(partitions or self.partitions)):
            yield records

    async def between(self, partition: TopicPartition, first: int, end: int) -> AsyncIterator[list[Record]]:
        """The partition's records from the offset `first` up to but not including `end`. Raises like `batches`."""
        self.consumer.seek(partition, first)
        async for records in self._read_to({partition: end}):
            yield [record for record in records if record.offset < end]

    async def _read_to(self, ends: Mapping[TopicPartition, int]) -> AsyncIterator[list[Record]]:
        while left := {each: at for each, end in ends.items() if (at := await self.consumer.position(each)) < end}:
            try:
                polled = await self._poll(left, _BATCH_RECORDS)
            except _Undecodable:
                for partition, at in left.items():
                    self.consumer.seek(partition, at)
                for partition in left:
                    if records := await self._read_one_by_one(partition, ends[partition]):
                        yield records
            else:
                for records in polled.values():
                    yield records

    async def _read_one_by_one(self, partition: TopicPartition, end: int) -> list[Record]:
        """The partition's next records, without those that the client cannot decode."""
        records: list[Record] = []
        size = 0
        while (
            len(records) < _BATCH_RECORDS
            and size < MOST_BYTES
            and (at := await self.consumer.position(partition)) < end
        ):
            try:
                one = (await self._poll([partition], 1)).get(partition, [])
            except _Undecodable:
                self._skip(partition, at)
            else:
                records += one
                size += sum(map(_size, one))
        return records

    async def _poll(self, partitions: Collection[TopicPartition], most: int) -> Mapping[TopicPartition, list[Record]]:
        try:
            with decompressing_at_most(MOST_BYTES):
                return await self.consumer.getmany(*partitions, timeout_ms=500, max_records=most)
        except CorruptRecordException as error:
            raise _Undecodable from error
        except (KafkaError, ConsumerStoppedError):
            raise
        except Exception as error:
            raise _Undecodable from error

    def _skip(self, partition: TopicPartition, offset: int) -> None:
        """Continue after an offset, or after the records that an operator has passed there."""
        place = self.place(partition)
        last = max((each.last_offset for each in self.passed if each.covers(*place, offset)), default=None)
        if last is None:
            self._note(OffsetRange(*place, offset, offset))
        self.consumer.seek(partition, (offset if last is None else last) + 1)

    def _note(self, skipped: OffsetRange) -> None:
        before = self.unreadable[-1] if self.unreadable else None
        if before is not None and before.covers(*skipped[:2], skipped.first_offset - 1):
            self.unreadable[-1] = before._replace(last_offset=skipped.last_offset)
        else:
            self.unreadable.append(skipped)


def _size(record: Record) -> int:
    headers = sum(len(name) + len(value or b"") for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers

"""How far a consumer has come, and whether it still does anything."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition

from muster_runtime.messaging.client_internals import known_position


class ConsumerStuck(Exception):
    """There are records to read and nothing is done, or the client has broken down: only a new one helps."""


class Progress:
    """What is applied of each partition of this process, and the last sign of life.

    `kafka` returns the client that reads; `ends` is another one, which asks where partitions end. `offsets` are those
    of the next records to apply; `in_hand` says that the client has handed over records that are not applied.
    """

    def __init__(self, kafka: Callable[[], AIOKafkaConsumer], ends: AIOKafkaConsumer, stuck_seconds: float) -> None:
        self._kafka = kafka
        self._ends = ends
        self._stuck_seconds = stuck_seconds
        self._last_sign_at = time.monotonic()
        self._rebalancing = True
        self.assigned = asyncio.Event()
        self.offsets: dict[TopicPartition, int] = {}
        self.in_hand = False

    @property
    def warnings(self) -> list[str]:
        """That the group has not shared out its partitions yet, for people.

        It waits for its slowest member, so this says nothing of the process.
        """
        return [] if self.assigned.is_set() else ["the consumer has not joined its group yet"]

    @property
    def reasons(self) -> list[str]:
        """Why the consumer may be stuck, for people."""
        if self._idle > self._stuck_seconds / 2:
            return [f"the consumer is behind and has done nothing for {self._idle:.0f} s"]
        return []

    def restart_watchdog(self) -> None:
        """Something was done, or nothing could be."""
        self._last_sign_at = time.monotonic()

    def begin(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Continue from these offsets of partitions that were assigned."""
        self.offsets |= offsets
        self.restart_watchdog()
        self._rebalancing = False
        self.assigned.set()

    def advance(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, tuple[int, int]]:
        """Everything before these offsets is applied; returns from which to which offset each partition was read.

        One that was revoked meanwhile is another process's.
        """
        read = {p: (self.offsets[p], offset) for p, offset in offsets.items() if p in self.offsets}
        self.offsets |= {partition: after for partition, (_, after) in read.items()}
        return read

    def pass_what_is_no_record(self) -> dict[TopicPartition, tuple[int, int]]:
        """Continue behind markers of transactions and deleted records; returns what `advance` does."""
        passed = {p: (offset, self._applied_up_to(p)) for p, offset in self.offsets.items()}
        return self.advance({p: after for p, (offset, after) in passed.items() if after > offset})

    def go_back(self, partitions: Iterable[TopicPartition]) -> None:
        """The database does not know of all that was read of partitions: begin again where it says."""
        for partition in partitions:
            self.offsets.pop(partition, None)

    def end(self) -> None:
        """The partitions are revoked."""
        self._rebalancing = True
        self.offsets.clear()

    async def lag(self) -> int:
        """How many records of this process's partitions are not applied yet; 1 while they are being shared out."""
        return 1 if self._rebalancing else await self._lag_of(self._kafka().assignment())

    async def check(self, partitions: Collection[TopicPartition], *, is_applying: bool) -> None:
        """Find a client that is stuck for good, without an error (aio-libs/aiokafka#1154): it is behind; nothing comes.

        Raises ConsumerStuck, where that is so with what is read of these partitions.
        """
        await self._ends.topics()  # raises where Kafka cannot be reached: then this is not the client's fault
        behind = 1 if self._rebalancing else await self._lag_of(partitions)
        if not behind:
            self.restart_watchdog()
        if self._idle > self._stuck_seconds and not is_applying:
            raise ConsumerStuck(f"the consumer is {behind} records behind and has done nothing for {self._idle:.0f} s")

    @property
    def _idle(self) -> float:
        return time.monotonic() - self._last_sign_at

    async def _lag_of(self, partitions: Collection[TopicPartition]) -> int:
        if not partitions:
            return 0
        ends = await self._ends.end_offsets(list(partitions))
        return sum(max(0, end - self._applied_up_to(partition)) for partition, end in ends.items())

    def _applied_up_to(self, partition: TopicPartition) -> int:
        """The offset before which all is applied.

        A transaction's marker takes an offset too and is no record, and records may be deleted before they are read:
        what the client has passed with nothing in hand needs no applying.
        """
        applied = self.offsets.get(partition, 0)
        position = None if self.in_hand else known_position(self._kafka(), partition)
        return applied if position is None else max(applied, position)

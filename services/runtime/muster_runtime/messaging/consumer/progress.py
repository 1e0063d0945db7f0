"""How far a consumer has read, and whether it is still making progress."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition

from muster_runtime.messaging.client_internals import known_position

# How long a batch may be applied without a handler that returns, far longer than any statement should take: one that
# waits for something outside of Postgres may never return, and its partitions have nobody else.
HUNG_SECONDS = 900.0


class ConsumerStuck(Exception):
    """There are records to read and no progress, or the client has broken down. Only a new process helps."""


class Progress:
    """What has been applied of each of this process's partitions, and when the consumer last showed progress.

    `kafka` returns the client that reads; `ends` is another client, which asks where partitions end. `offsets` are the
    offsets of the next records to apply. `in_hand` says whether the client has returned records that are not applied
    yet.
    """

    def __init__(self, kafka: Callable[[], AIOKafkaConsumer], ends: AIOKafkaConsumer, stuck_seconds: float) -> None:
        self._kafka = kafka
        self._ends = ends
        self._stuck_seconds = stuck_seconds
        self._last_sign_at = time.monotonic()
        self._handled = 0
        self._rebalancing = True
        self.assigned = asyncio.Event()
        self.offsets: dict[TopicPartition, int] = {}
        self.in_hand = False

    @property
    def warnings(self) -> list[str]:
        """A human-readable note while the group has not assigned partitions yet.

        The group waits for its slowest member, so this says nothing about this process.
        """
        return [] if self.assigned.is_set() else ["the consumer has not joined its group yet"]

    @property
    def reasons(self) -> list[str]:
        """Human-readable reasons why the consumer may be stuck."""
        if self._idle > self._stuck_seconds / 2:
            return [f"the consumer is behind and has been stuck for {self._idle:.0f} s"]
        return []

    def restart_watchdog(self) -> None:
        """Note that there was progress, or that none was possible."""
        self._last_sign_at = time.monotonic()

    def begin(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Continue from these offsets of newly assigned partitions."""
        self.offsets |= offsets
        self.restart_watchdog()
        self._rebalancing = False
        self.assigned.set()

    def advance(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, tuple[int, int]]:
        """Note that everything before these offsets is applied. Returns the range of offsets read of each partition.

        Partitions that were revoked belong to another process and are ignored.
        """
        read = {p: (self.offsets[p], offset) for p, offset in offsets.items() if p in self.offsets}
        self.offsets |= {partition: after for partition, (_, after) in read.items()}
        return read

    def pass_what_is_no_record(self) -> dict[TopicPartition, tuple[int, int]]:
        """Continue after transaction markers and deleted records; returns the same as `advance`."""
        passed = {p: (offset, self._applied_up_to(p)) for p, offset in self.offsets.items()}
        return self.advance({p: after for p, (offset, after) in passed.items() if after > offset})

    def go_back(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget the offsets of partitions with records that the database lost. It then says where to start again."""
        for partition in partitions:
            self.offsets.pop(partition, None)

    def end(self) -> None:
        """Forget the offsets: the partitions are revoked."""
        self._rebalancing = True
        self.offsets.clear()

    async def lag(self) -> int:
        """How many records of this process's partitions are not applied yet; 1 during a rebalance."""
        return 1 if self._rebalancing else await self._lag_of(self._kafka().assignment())

    async def check(self, partitions: Collection[TopicPartition], *, is_applying: bool, handled: int) -> None:
        """Detect a client that is stuck without an error (aio-libs/aiokafka#1154): it is behind but gets no records.

        It also detects a batch that hangs: `handled` grows while handlers return, as during a long replay. Raises
        ConsumerStuck if the consumer makes no progress with these partitions.
        """
        if handled != self._handled:
            self._handled = handled
            self.restart_watchdog()
        await self._ends.topics()  # raises if Kafka is unreachable: then the client is not to blame
        behind = 1 if self._rebalancing else await self._lag_of(partitions)
        if not behind:
            self.restart_watchdog()
        if is_applying:
            if self._idle > max(HUNG_SECONDS, self._stuck_seconds):
                raise ConsumerStuck(
                    f"the consumer has applied one batch for {self._idle:.0f} s, and no handler returns"
                )
        elif self._idle > self._stuck_seconds:
            raise ConsumerStuck(f"the consumer is {behind} records behind and has been stuck for {self._idle:.0f} s")

    @property
    def _idle(self) -> float:
        return time.monotonic() - self._last_sign_at

    async def _lag_of(self, partitions: Collection[TopicPartition]) -> int:
        if not partitions:
            return 0
        ends = await self._ends.end_offsets(list(partitions))
        return sum(max(0, end - self._applied_up_to(partition)) for partition, end in ends.items())

    def _applied_up_to(self, partition: TopicPartition) -> int:
        """The offset before which everything is applied.

        A transaction marker has an offset but is not a record, and records may be deleted before they are read. So with
        nothing in hand, everything before the client's position counts as applied.
        """
        applied = self.offsets.get(partition, 0)
        position = None if self.in_hand else known_position(self._kafka(), partition)
        return applied if position is None else max(applied, position)

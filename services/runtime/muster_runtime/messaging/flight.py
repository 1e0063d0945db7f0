"""Tracks what is in flight to Kafka, partition by partition, and which streams wait for a partition.

Each partition has at most one batch in flight. A partition without a leader holds up only the streams in it. A late
partition also delays the others on the same broker, because the client has one request in flight per broker.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError

from muster_runtime.messaging.positions import StreamKey
from muster_runtime.messaging.producers import Batches, Producer

# A partition of facts that has not acknowledged within this time is late, and the others no longer wait for it.
PATIENCE_SECONDS = 2.0

# A client that has lost a response must not block the outbox forever: after this time, a new client sends everything
# again.
SEND_SECONDS = 120

_log = structlog.get_logger(__name__)

Run = Mapping[str, Any]  # a row of the outbox


@dataclass(frozen=True, slots=True)
class Part:
    """What is sent to one partition: the runs, and the batches of their events."""

    runs: Sequence[Run]
    batches: Batches


Parts = Mapping[TopicPartition, Part]


@dataclass(frozen=True, slots=True)
class _Sending:
    """A partition's runs in flight, and when the send started, by the monotonic clock."""

    task: asyncio.Task[None]
    runs: Sequence[Run]
    started_at: float


class Flight:
    """The partitions that one lane sends to.

    `on_arrival` is called when a late partition has acknowledged or failed.
    """

    def __init__(self, topic_prefix: str, on_arrival: Callable[[], None]) -> None:
        self._topic_prefix = topic_prefix
        self._on_arrival = on_arrival
        self._sending: dict[TopicPartition, _Sending] = {}
        self._slow: set[TopicPartition] = set()  # late the last time they were sent to
        self._waiting: dict[TopicPartition, set[StreamKey]] = {}  # the streams that each partition holds up
        self.regained = False  # a partition has a leader again, which may lack the old leader's records

    @property
    def waiting(self) -> Collection[StreamKey]:
        """The streams that cannot be sent now."""
        return [stream for streams in self._waiting.values() for stream in streams]

    @property
    def reasons(self) -> list[str]:
        """Human-readable reasons why streams wait."""
        return [
            f"{partition.topic}[{partition.partition}] "
            f"{'does not acknowledge' if partition in self._sending else 'has no leader'}; "
            f"{len(streams)} {'stream waits' if len(streams) == 1 else 'streams wait'}"
            for partition, streams in self._waiting.items()
        ]

    def hold_up(self, partitions: Collection[TopicPartition]) -> None:
        """Make all streams in these partitions wait until the partitions have a leader."""
        for partition in partitions:
            self._waiting.setdefault(partition, set())

    async def encode(self, producer: Producer, batch: Sequence[Run]) -> Parts:
        """Group the runs by partition and encode them. Raises KafkaError."""
        runs: dict[TopicPartition, list[Run]] = {}
        for run in batch:
            partition = await producer.partition_of(self._topic_prefix + run["topic"], run["agency_id"].encode())
            runs.setdefault(partition, []).append(run)
        return {partition: Part(part, await producer.encode(part)) for partition, part in runs.items()}

    def sendable(self, producer: Producer, parts: Parts) -> Parts:
        """The parts whose partitions can be sent to. The streams of the other parts wait."""
        for partition, part in parts.items():
            if partition in self._waiting or not producer.has_leader(partition):
                streams = {(run["topic"], run["agency_id"]) for run in part.runs}
                self._waiting.setdefault(partition, set()).update(streams)
        return {partition: part for partition, part in parts.items() if partition not in self._waiting}

    async def send(self, producer: Producer, parts: Parts) -> None:
        """Send each partition its part. Returns when every partition that is not late has acknowledged.

        A fenced producer waits for all partitions, because one transaction covers them. Raises KafkaError,
        TimeoutError.
        """
        try:
            async with asyncio.timeout(SEND_SECONDS), producer.transaction():
                for partition, part in parts.items():
                    task = asyncio.create_task(producer.send(partition, part.batches))
                    self._sending[partition] = _Sending(task, part.runs, time.monotonic())
                if producer.is_fenced:
                    await asyncio.gather(*(self._sending[partition].task for partition in parts))
                elif tasks := [self._sending[partition].task for partition in parts.keys() - self._slow]:
                    await asyncio.wait(tasks, timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
        except TimeoutError:
            raise TimeoutError(f"Kafka has not committed a transaction within {SEND_SECONDS} s") from None

    def collect(self, producer: Producer) -> Sequence[Run]:
        """The runs acknowledged by now, including late ones. Their partitions' streams no longer wait.

        Call it only after the parts in hand are sent, and before `sendable` checks the next ones. Those were read
        meanwhile, and contain nothing of a stream that waited then. Raises the error of a partition that failed.
        """
        acknowledged: list[Run] = []
        for partition, sending in list(self._sending.items()):
            if not sending.task.done():
                self._note_late(partition, sending)
                continue
            sending.task.result()
            del self._sending[partition]
            self._waiting.pop(partition, None)
            self._slow.discard(partition)
            acknowledged += sending.runs
        for partition in self._waiting.keys() - self._sending.keys():
            if producer.has_leader(partition):
                del self._waiting[partition]
                self.regained = True
        return acknowledged

    def _note_late(self, partition: TopicPartition, sending: _Sending) -> None:
        if time.monotonic() > sending.started_at + SEND_SECONDS:
            raise KafkaTimeoutError(f"{partition} has acknowledged nothing for {SEND_SECONDS} s")
        if partition not in self._waiting:
            _log.warning("partition_late", topic=partition.topic, partition=partition.partition)
            sending.task.add_done_callback(lambda _: self._on_arrival())
        self._slow.add(partition)
        self._waiting.setdefault(partition, set()).update((run["topic"], run["agency_id"]) for run in sending.runs)

    async def cancel(self) -> None:
        """Forget what is in flight, after the producer is closed. Nothing waits after that."""
        tasks = [sending.task for sending in self._sending.values()]
        self._sending.clear()
        self._waiting.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

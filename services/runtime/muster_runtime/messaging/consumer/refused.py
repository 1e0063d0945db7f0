"""What Kafka does not allow a consumer: it waits, skips nothing, and goes on once it is allowed again."""

import asyncio
import time
from collections.abc import Collection, Container

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError

from muster_runtime.messaging.client_internals import rejoin
from muster_runtime.messaging.connection import forbidden

# Until Kafka is asked again.
RETRY_SECONDS = 2.0

# How long after its last refusal a group counts as refused: it is asked again, and answers, well within that.
SHOWN_SECONDS = 3 * RETRY_SECONDS

_log = structlog.get_logger(__name__)


def concerns_group(error: Exception) -> bool:
    """Whether Kafka does not allow what the client does as a member of its group, rather than reading a partition."""
    if isinstance(error, TopicAuthorizationFailedError):
        return not isinstance(error.args[0], str)  # a set of topics, whose offsets are refused
    return isinstance(error, GroupAuthorizationFailedError)


class Refused:
    """The partitions and the group that Kafka does not allow. The other partitions are read meanwhile."""

    def __init__(self) -> None:
        self._partitions: dict[TopicPartition, float] = {}  # with when they may be asked for again
        self._group: tuple[str, float] | None = None  # why it is refused, and when it was

    @property
    def partitions(self) -> Collection[TopicPartition]:
        """Those that are not read."""
        return self._partitions.keys()

    @property
    def reasons(self) -> list[str]:
        """What is not allowed, for people."""
        topics = sorted({partition.topic for partition in self._partitions})
        reasons = [f"Kafka does not allow the topic {topic} to be read" for topic in topics]
        if self._group is not None and time.monotonic() < self._group[1] + SHOWN_SECONDS:
            reasons.append(self._group[0])
        return reasons

    def clear(self) -> None:
        """The partitions are revoked."""
        self._partitions.clear()

    def put_aside(self, consumer: AIOKafkaConsumer, partition: TopicPartition, error: Exception) -> None:
        """Do not read a partition for a while."""
        if partition not in self._partitions:
            _log.error("partition_refused", topic=partition.topic, partition=partition.partition, error=str(error))
        self._partitions[partition] = time.monotonic() + RETRY_SECONDS
        if partition in consumer.assignment():
            consumer.pause(partition)

    def try_again(self, consumer: AIOKafkaConsumer, paused: Container[TopicPartition]) -> None:
        """Ask again for what has waited; one that is `paused` for another reason stays so.

        One that is not refused by the time that it would be asked for once more is allowed.
        """
        now = time.monotonic()
        for partition, until in list(self._partitions.items()):
            if now >= until + RETRY_SECONDS:
                del self._partitions[partition]
            elif now >= until and partition in consumer.paused() and partition not in paused:
                consumer.resume(partition)

    async def wait_for_group(self, consumer: AIOKafkaConsumer, error: Exception) -> None:
        """Let the consumer join its group again, after a while."""
        reason = forbidden(error) or str(error)
        if self._group is None or time.monotonic() >= self._group[1] + SHOWN_SECONDS:
            _log.error("group_refused", error=reason)
        self._group = reason, time.monotonic()
        await asyncio.sleep(RETRY_SECONDS)
        rejoin(consumer)

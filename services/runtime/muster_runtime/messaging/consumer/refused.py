"""What Kafka denies a consumer. The consumer waits without skipping anything, and continues once access is granted."""

import asyncio
import time
from collections.abc import Collection, Container

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError

from muster_runtime.messaging.client_internals import rejoin
from muster_runtime.messaging.connection import forbidden

# How long to wait before asking Kafka again.
RETRY_SECONDS = 2.0

# How long a group counts as refused after its last refusal: longer than it takes to ask Kafka again and get an answer.
SHOWN_SECONDS = 3 * RETRY_SECONDS

_log = structlog.get_logger(__name__)


def concerns_group(error: Exception) -> bool:
    """Whether Kafka denies an operation on the group, rather than reading a partition."""
    if isinstance(error, TopicAuthorizationFailedError):
        return not isinstance(error.args[0], str)  # a set of topics: their offsets are denied
    return isinstance(error, GroupAuthorizationFailedError)


class Refused:
    """The partitions and the group that Kafka denies access to. The other partitions are still read."""

    def __init__(self) -> None:
        self._partitions: dict[TopicPartition, float] = {}  # when to ask again
        self._group: tuple[str, float] | None = None  # why and when it was refused

    @property
    def partitions(self) -> Collection[TopicPartition]:
        """The partitions that are not read."""
        return self._partitions.keys()

    @property
    def reasons(self) -> list[str]:
        """Human-readable reasons: what Kafka denies."""
        topics = sorted({partition.topic for partition in self._partitions})
        reasons = [f"Kafka denies Read on the topic {topic}" for topic in topics]
        if self._group is not None and time.monotonic() < self._group[1] + SHOWN_SECONDS:
            reasons.append(self._group[0])
        return reasons

    def clear(self) -> None:
        """Forget the partitions: they are revoked."""
        self._partitions.clear()

    def put_aside(self, consumer: AIOKafkaConsumer, partition: TopicPartition, error: Exception) -> None:
        """Stop reading a partition for a while."""
        if partition not in self._partitions:
            _log.error("partition_refused", topic=partition.topic, partition=partition.partition, error=str(error))
        self._partitions[partition] = time.monotonic() + RETRY_SECONDS
        if partition in consumer.assignment():
            consumer.pause(partition)

    def try_again(self, consumer: AIOKafkaConsumer, paused: Container[TopicPartition]) -> None:
        """Resume partitions that have waited long enough, except those `paused` for another reason.

        A partition that is not refused again within RETRY_SECONDS after that is considered allowed.
        """
        now = time.monotonic()
        for partition, until in list(self._partitions.items()):
            if now >= until + RETRY_SECONDS:
                del self._partitions[partition]
            elif now >= until and partition in consumer.paused() and partition not in paused:
                consumer.resume(partition)

    async def wait_for_group(self, consumer: AIOKafkaConsumer, error: Exception) -> None:
        """Wait, then let the consumer rejoin its group."""
        reason = forbidden(error) or str(error)
        if self._group is None or time.monotonic() >= self._group[1] + SHOWN_SECONDS:
            _log.error("group_refused", error=reason)
        self._group = reason, time.monotonic()
        await asyncio.sleep(RETRY_SECONDS)
        rejoin(consumer)

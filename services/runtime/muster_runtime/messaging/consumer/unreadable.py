"""Partitions with a record that the client cannot read: each waits there until an operator lets the group past it."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import structlog
from aiokafka import ConsumerRecord, TopicPartition

from muster_runtime.errors import describe

_log = structlog.get_logger(__name__)


class _Place(NamedTuple):
    """The offset from which a partition cannot be read, and why."""

    offset: int
    why: str


class UnreadablePartitions:
    """The partitions that cannot be read further. The other partitions are still read."""

    def __init__(self) -> None:
        self._places: dict[TopicPartition, _Place] = {}

    @property
    def partitions(self) -> Collection[TopicPartition]:
        """The partitions that are not read."""
        return self._places.keys()

    @property
    def reasons(self) -> list[str]:
        """Human-readable reasons: where each partition cannot be read, and why."""
        return [f"{p.topic}[{p.partition}]@{at} cannot be read: {why}" for p, (at, why) in self._places.items()]

    def clear(self) -> None:
        """Forget the partitions: they are revoked."""
        self._places.clear()

    def note(self, partition: TopicPartition, offset: int, error: Exception) -> None:
        """Note that a partition cannot be read from an offset on; a new one is logged."""
        if self._places.get(partition, (None,))[0] != offset:
            place = {"topic": partition.topic, "partition": partition.partition, "offset": offset}
            _log.error("partition_unreadable", **place, exc_info=error)
        self._places[partition] = _Place(offset, describe(error))

    def forget(self, partition: TopicPartition) -> None:
        """Forget a partition whose record an operator let the group pass. It may have been revoked meanwhile."""
        self._places.pop(partition, None)

    def forget_read(self, polled: Mapping[TopicPartition, Sequence[ConsumerRecord[bytes, bytes]]]) -> None:
        """Forget the partitions that could be read up to the place, or further."""
        for partition, records in polled.items():
            known = self._places.get(partition)
            if known is not None and records[-1].offset >= known.offset:
                del self._places[partition]

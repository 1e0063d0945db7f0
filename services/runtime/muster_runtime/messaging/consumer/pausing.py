"""Partitions that wait, for one of their streams or because their topic was repartitioned. The others continue."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalStateError

from muster_runtime.messaging.applier import Applier
from muster_runtime.messaging.consumer.records import Records
from muster_runtime.messaging.kafka_topics import TopicRepartitioned
from muster_runtime.messaging.parking import StreamBlocked, StreamFull
from muster_runtime.observability.telemetry import PAUSED_PARTITIONS

_log = structlog.get_logger(__name__)

Consumed = Sequence[ConsumerRecord[bytes, bytes]]


class PausedPartitions:
    """This process's paused partitions, and why each is paused.

    `needed` maps topic names in Kafka to the number of partitions that each must have.
    """

    def __init__(
        self, kafka: Callable[[], AIOKafkaConsumer], applier: Applier, records: Records, needed: Mapping[str, int]
    ) -> None:
        self._kafka = kafka
        self._applier = applier
        self._records = records
        self._needed = needed
        self._reasons: dict[TopicPartition, StreamBlocked | TopicRepartitioned] = {}

    def __contains__(self, partition: object) -> bool:
        return partition in self._reasons

    def __iter__(self) -> Iterator[TopicPartition]:
        return iter(self._reasons)

    @property
    def reasons(self) -> list[str]:
        """Human-readable reasons why partitions wait for an operator."""
        wait = (StreamFull, TopicRepartitioned)
        reasons = dict.fromkeys(str(why) for why in self._reasons.values() if isinstance(why, wait))
        return [f"reading waits: {why}" for why in reasons]

    def clear(self) -> None:
        """Forget the partitions: they are revoked. Their next owner reads them again, and pauses them if it must."""
        self._reasons.clear()

    def put_repartitioned_aside(self, consumed: Consumed) -> Consumed:
        """Put aside the records of repartitioned topics; return the others."""
        wrong = {topic: why for topic in {r.topic for r in consumed} if (why := self._repartitioned(topic))}
        return self._put_aside(
            consumed, {TopicPartition(r.topic, r.partition): wrong[r.topic] for r in consumed if r.topic in wrong}
        )

    def put_streams_aside(self, consumed: Consumed, blocked: Sequence[StreamBlocked]) -> Consumed:
        """Put aside the records of partitions whose streams must wait; return the others."""
        by_stream = {(why.topic, why.agency_id): why for why in blocked}
        waiting: dict[TopicPartition, StreamBlocked | TopicRepartitioned] = {}
        for each in consumed:
            record = self._records.read(each)
            if why := by_stream.get((record.topic, record.agency_id)):
                waiting[TopicPartition(each.topic, each.partition)] = why
        return self._put_aside(consumed, waiting)

    async def resume(self) -> None:
        """Resume the partitions that no longer have to wait."""
        for partition, why in list(self._reasons.items()):
            if await self._may_go_on(partition, why) and self._reasons.get(partition) is why:
                del self._reasons[partition]
                with suppress(IllegalStateError):
                    self._kafka().resume(partition)
                _log.info("partition_resumed", topic=partition.topic, partition=partition.partition)
        self._count()

    def _put_aside(
        self, consumed: Consumed, waiting: Mapping[TopicPartition, StreamBlocked | TopicRepartitioned]
    ) -> Consumed:
        """Pause partitions at their first record in the batch; return the records of the others."""
        if not waiting:
            return consumed
        first: dict[TopicPartition, int] = {}
        for each in consumed:
            first.setdefault(TopicPartition(each.topic, each.partition), each.offset)
        for partition, why in waiting.items():
            agency_id = why.agency_id if isinstance(why, StreamBlocked) else None
            _log.error(
                "partition_paused",
                topic=partition.topic,
                partition=partition.partition,
                agency_id=agency_id,
                reason=str(why),
            )
            with suppress(IllegalStateError):  # it may have been revoked
                self._kafka().pause(partition)
                self._kafka().seek(partition, first[partition])
                self._reasons[partition] = why
        self._count()
        return [each for each in consumed if TopicPartition(each.topic, each.partition) not in waiting]

    def _repartitioned(self, topic: str) -> TopicRepartitioned | None:
        there = self._kafka().partitions_for_topic(topic)
        needed = self._needed[topic]
        return TopicRepartitioned(topic, len(there), needed) if there and len(there) != needed else None

    async def _may_go_on(self, partition: TopicPartition, why: StreamBlocked | TopicRepartitioned) -> bool:
        if isinstance(why, TopicRepartitioned):
            return self._repartitioned(partition.topic) is None
        return await self._applier.may_go_on(why)

    def _count(self) -> None:
        PAUSED_PARTITIONS.labels(self._applier.subscriptions.service).set(len(self._reasons))

"""Where the usage intake continues: at the offsets in its database, in the topic that they belong to.

The events of the topic have no sequence, so nothing else would show that records are missing.
"""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from muster_contracts.entitlements import FeatureUsed
from muster_entitlements.repository import usage_intake
from muster_entitlements.repository.usage_intake import Place
from muster_runtime.database.transactions import Database, UnitOfWork
from muster_runtime.errors import RetryableError
from muster_runtime.messaging import passing
from muster_runtime.messaging.client_internals import client_of, leaderless
from muster_runtime.messaging.topic_ids import find_topic_id

# How long Kafka may take to answer.
KAFKA_SECONDS = 4.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Lane:
    """One of `lanes` lanes: the partitions whose numbers are `number` modulo `lanes`."""

    number: int
    lanes: int

    def has(self, partition: TopicPartition) -> bool:
        """Whether it reads a partition."""
        return partition.partition % self.lanes == self.number


# The single lane of all partitions.
ALL = Lane(0, 1)


class OffsetsMoved(RetryableError):
    """The stored offsets differ: the database was rolled back, another process read on, or the topic was recreated."""


class Places:
    """`next` has the offset at which each partition continues, in the topic with the ID `topic_id`."""

    def __init__(self, topic_id: str = "") -> None:
        self.topic_id = topic_id
        self.next: dict[TopicPartition, int] = {}

    @classmethod
    async def find(
        cls,
        database: Database,
        group: str,
        consumer: AIOKafkaConsumer,
        topic: str,
        partitions: Collection[TopicPartition],
    ) -> "Places":
        """Where these partitions continue. A topic that was recreated is read from its beginning."""
        topic_id, begins, ends = await _ask(consumer, topic, partitions)
        places = cls(topic_id)
        async with database.connection() as connection, connection.transaction():
            stored = await usage_intake.find_places(connection, FeatureUsed.topic, [p.partition for p in partitions])
            for partition in partitions:
                number = partition.partition
                offset, known = stored.get(number, Place(0, topic_id))
                if known not in (None, topic_id) or offset > ends.get(partition, offset):
                    _log.error("usage_topic_recreated", partition=number, offset=offset, topic_id=topic_id, was=known)
                    await usage_intake.set_aside(connection, FeatureUsed.topic, number)
                    await passing.forget(connection, group, FeatureUsed.topic, number)
                    offset = 0
                begin = begins.get(partition, 0)
                if offset < begin:
                    _log.error("usage_lost", partition=number, records=begin - offset, offset=offset, onward=begin)
                places.next[partition] = max(offset, begin)
            found = {p.partition: Place(offset, topic_id) for p, offset in places.next.items()}
            changed = {n: place for n, place in found.items() if stored.get(n, Place(0, topic_id)) != place}
            await usage_intake.save_places(connection, FeatureUsed.topic, changed)
        return places

    async def look(self, database: Database, consumer: AIOKafkaConsumer, topic: str) -> int:
        """How many records are still unread. Raises what is retryable, such as OffsetsMoved."""
        topic_id, _, ends = await _ask(consumer, topic, self.next)
        if topic_id != self.topic_id:  # the new topic may have more partitions
            raise OffsetsMoved(f"{topic} was recreated: its ID was {self.topic_id}, and is now {topic_id}")
        async with database.connection() as connection:
            stored = await usage_intake.find_places(connection, FeatureUsed.topic, [p.partition for p in self.next])
        for partition, offset in self.next.items():
            if stored.get(partition.partition, Place(0, topic_id)) != Place(offset, topic_id):
                raise OffsetsMoved(f"{topic}[{partition.partition}] does not continue at {offset} of {self.topic_id}")
        return sum(end - self.next[partition] for partition, end in ends.items())

    async def move(self, uow: UnitOfWork, after: Mapping[TopicPartition, int]) -> None:
        """Store in a transaction where partitions continue. Raises OffsetsMoved."""
        moves = {partition.partition: (self.next[partition], offset) for partition, offset in after.items()}
        if not await usage_intake.move(uow.connection, FeatureUsed.topic, self.topic_id, moves):
            raise OffsetsMoved(f"the usage topic was read further, or the database was rolled back: {moves}")


async def _ask(
    consumer: AIOKafkaConsumer, topic: str, partitions: Collection[TopicPartition]
) -> tuple[str, Mapping[TopicPartition, int], Mapping[TopicPartition, int]]:
    """The topic's ID, and the offsets at which the partitions that have a leader begin and end."""
    without = leaderless(consumer)
    led = [partition for partition in partitions if partition not in without]
    async with asyncio.timeout(KAFKA_SECONDS):
        # Each request waits for a fetch that a broker holds. The ID is asked for first: if the topic is recreated
        # meanwhile, it is the earlier one, and the next look notices.
        topic_id = await find_topic_id(client_of(consumer), topic)
        begins, ends = await asyncio.gather(consumer.beginning_offsets(led), consumer.end_offsets(led))
    return topic_id, begins, ends

"""Where the intake of use goes on: as its database says, in the topic of which it says so.

The producers of the topic number nothing, so nothing else would show what is missed.
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

# How long Kafka may take for its answers.
KAFKA_SECONDS = 4.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Lane:
    """One of so many lanes: the partitions whose numbers leave `number` when divided by `lanes`."""

    number: int
    lanes: int

    def has(self, partition: TopicPartition) -> bool:
        """Whether it reads a partition."""
        return partition.partition % self.lanes == self.number


# For all partitions.
ALL = Lane(0, 1)


class OffsetsMoved(RetryableError):
    """The database says another place: it has gone back, another process has read further, or the topic is another."""


class Places:
    """Where each partition goes on, in `next`; the topic must stay the one of `topic_id`."""

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
        """Where these partitions go on. Another topic of the same name is read from its beginning."""
        topic_id, begins, ends = await _ask(consumer, topic, partitions)
        places = cls(topic_id)
        async with database.connection() as connection, connection.transaction():
            stored = await usage_intake.find_places(connection, FeatureUsed.topic, [p.partition for p in partitions])
            for partition in partitions:
                number = partition.partition
                offset, known = stored.get(number, Place(0, topic_id))
                if known not in (None, topic_id) or offset > ends.get(partition, offset):
                    _log.error("usage_topic_made_again", partition=number, offset=offset, topic_id=topic_id, was=known)
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
        """How many records are still to be read. Raises what is retryable, also where they do not go on there."""
        topic_id, _, ends = await _ask(consumer, topic, self.next)
        if topic_id != self.topic_id:  # which may have partitions that the last one lacked
            raise OffsetsMoved(f"{topic} was made again: it was {self.topic_id}, and is {topic_id}")
        async with database.connection() as connection:
            stored = await usage_intake.find_places(connection, FeatureUsed.topic, [p.partition for p in self.next])
        for partition, offset in self.next.items():
            if stored.get(partition.partition, Place(0, topic_id)) != Place(offset, topic_id):
                raise OffsetsMoved(f"{topic}[{partition.partition}] does not go on at {offset} of {self.topic_id}")
        return sum(end - self.next[partition] for partition, end in ends.items())

    async def move(self, uow: UnitOfWork, after: Mapping[TopicPartition, int]) -> None:
        """Store with a transaction that partitions go on from there. Raises OffsetsMoved."""
        moves = {partition.partition: (self.next[partition], offset) for partition, offset in after.items()}
        if not await usage_intake.move(uow.connection, FeatureUsed.topic, self.topic_id, moves):
            raise OffsetsMoved(f"the usage topic was read further, or the database has gone back: {moves}")


async def _ask(
    consumer: AIOKafkaConsumer, topic: str, partitions: Collection[TopicPartition]
) -> tuple[str, Mapping[TopicPartition, int], Mapping[TopicPartition, int]]:
    """The topic's ID, and where those of the partitions begin and end that have a leader."""
    without = leaderless(consumer)
    led = [partition for partition in partitions if partition not in without]
    async with asyncio.timeout(KAFKA_SECONDS):
        topic_id = await find_topic_id(client_of(consumer), topic)
        return topic_id, await consumer.beginning_offsets(led), await consumer.end_offsets(led)

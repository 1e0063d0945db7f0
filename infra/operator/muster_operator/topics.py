"""Creates Kafka's topics as the contracts describe them."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from muster_contracts import Topic
from muster_contracts.topics import MIN_IN_SYNC, REPLICAS, min_in_sync
from muster_runtime.messaging.connection import KafkaConnection

VISIBLE_WITHIN_SECONDS = 30


async def create_topics(
    kafka: KafkaConnection,
    prefix: str,
    topics: Iterable[Topic],
    *,
    partitions: int | None = None,
    replicas: int | None = None,
) -> list[str]:
    """Create the missing topics, with at most `partitions` partitions each, if given.

    Each gets `replicas` replicas, by default `usual_replicas`. Existing topics stay unchanged: partitions are never
    added to a live topic. Returns the names of the new topics once the brokers know them. Raises TimeoutError if they
    do not within VISIBLE_WITHIN_SECONDS.
    """
    async with connect(kafka) as admin:
        copies = replicas or await usual_replicas(admin)
        wanted = [
            NewTopic(
                prefix + topic.name,
                num_partitions=min(partitions or topic.partitions, topic.partitions),
                replication_factor=copies,
                topic_configs={**topic.settings, MIN_IN_SYNC: str(min_in_sync(copies))},
            )
            for topic in topics
        ]
        answer = await admin.create_topics(wanted)
        created = _done(answer.to_object()["topic_errors"], ignored=TopicAlreadyExistsError)
        # The controller answers before the brokers know the topics: a service that starts now would miss them.
        async with asyncio.timeout(VISIBLE_WITHIN_SECONDS):
            while not {topic.name for topic in wanted} <= set(await admin.list_topics()):
                await asyncio.sleep(0.02)
    return created


async def usual_replicas(admin: AIOKafkaAdminClient) -> int:
    """The number of replicas of a topic on this cluster: three, or the number of brokers if there are fewer."""
    return min(REPLICAS, len((await admin.describe_cluster())["brokers"]))


async def delete_topics(kafka: KafkaConnection, names: Iterable[str]) -> None:
    """Delete topics by their names in Kafka. A missing topic is not an error."""
    async with connect(kafka) as admin:
        answer = await admin.delete_topics(list(names))
    _done(answer.to_object()["topic_error_codes"], ignored=UnknownTopicOrPartitionError)


def _done(outcomes: Iterable[dict[str, Any]], *, ignored: type[Exception]) -> list[str]:
    """The topics for which the broker reported success. Raises any error except the ignored one."""
    done = []
    for outcome in outcomes:
        if outcome["error_code"] == 0:
            done.append(outcome["topic"])
        elif not issubclass(error := for_code(outcome["error_code"]), ignored):
            raise error(f"{outcome['topic']}: {outcome.get('error_message', '')}")
    return done


@asynccontextmanager
async def connect(kafka: KafkaConnection) -> AsyncIterator[AIOKafkaAdminClient]:
    """An administrator's connection to a cluster."""
    admin = AIOKafkaAdminClient(**kafka.options())
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()

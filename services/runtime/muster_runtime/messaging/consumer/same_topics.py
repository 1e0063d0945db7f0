"""Detects recreated topics: after a topic is recreated, the stored offsets point to other records."""

import asyncio
from collections.abc import Mapping

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import TopicAuthorizationFailedError, UnknownTopicOrPartitionError

from muster_runtime.database.transactions import Database
from muster_runtime.messaging import offsets
from muster_runtime.messaging.client_internals import client_of
from muster_runtime.messaging.topic_ids import find_topic_id

_log = structlog.get_logger(__name__)


class TopicMadeAgain(Exception):
    """A topic was recreated while the process ran.

    The client may not read it for minutes; a new client reads it at once.
    """

    def __init__(self, topic: str) -> None:
        super().__init__(f"the topic {topic} was recreated: the next process reads it from its beginning")


class SameTopics:
    """Compares the topics with those that were read before.

    `names` maps topic names in Kafka to the contracts' names. `kafka` is a started client, used to look up topic IDs.
    """

    def __init__(self, database: Database, group: str, names: Mapping[str, str], kafka: AIOKafkaConsumer) -> None:
        self._database = database
        self._group = group
        self._names = names
        self._kafka = kafka
        self._ids: dict[str, str] = {}

    async def look(self) -> None:
        """Make recreated topics be read from their beginning. Events that were already applied are skipped.

        Raises TopicMadeAgain if a topic was recreated after the first look.
        """
        ids = dict(zip(self._names, await asyncio.gather(*map(self._find_id, self._names)), strict=True))
        found = {topic: topic_id for topic, topic_id in ids.items() if topic_id is not None}
        for topic, topic_id in found.items():
            if self._ids.setdefault(topic, topic_id) != topic_id:
                raise TopicMadeAgain(topic)
        named = {self._names[topic]: topic_id for topic, topic_id in found.items()}
        async with self._database.connection() as connection:
            again = await offsets.note_topics(connection, self._group, named)
        for name in again:
            _log.error("topic_recreated", topic=name, topic_id=named[name])

    async def _find_id(self, topic: str) -> str | None:
        """The ID of a topic; None if it does not exist or may not be described, which readiness reports."""
        try:
            return await find_topic_id(client_of(self._kafka), topic)
        except (UnknownTopicOrPartitionError, TopicAuthorizationFailedError):
            return None

"""Whether a lane of the relay may send what it reads from the database: only if no commits are lost there."""

import time
from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from aiokafka import TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from muster_runtime.database.transactions import Database
from muster_runtime.messaging import comparison
from muster_runtime.messaging.connection import KafkaConnection, denied_names
from muster_runtime.messaging.kafka_topics import TopicFaults
from muster_runtime.messaging.restore_guard import DatabaseRestored, refuse_restored

# How often to look whether the lane is still noted as compared.
LOOK_SECONDS = 5.0


class Trust:
    """Whether the database is known to have lost no commits. It compares all of the relay's `topics`.

    Any of them may be the only one that shows a loss, so a lane compares the other lanes' topics, too, as far as it can
    read them. It notes that it has compared its `own`.
    """

    def __init__(
        self,
        database: Database,
        kafka: KafkaConnection,
        topic_prefix: str,
        topics: Sequence[str],
        faults: Callable[[], TopicFaults],
        *,
        lane: str,
        own: Collection[str],
    ) -> None:
        self._database = database
        self._kafka = kafka
        self._topic_prefix = topic_prefix
        self._topics = topics
        self._faults = faults
        self._lane = lane
        self._forgotten = 0
        self._look_at = 0.0
        self._own = {topic_prefix + topic for topic in own}
        # The server that has lost none, and the topics that show it.
        self._trusted: tuple[datetime | None, Sequence[str]] | None = None

    def forget(self) -> None:
        """Compare again at the next check. A check that runs now does not count."""
        self._trusted = None
        self._forgotten += 1

    async def check(self) -> Collection[TopicPartition]:
        """Compare the topics with a server that is not trusted yet. Raises like `refuse_restored`.

        Returns the partitions of its own topics that have no leader, and so are not compared. A missing topic is
        compared once it is back. Deadlines wait until all are compared.
        """
        missing = self._faults().missing
        there = [topic for topic in self._topics if self._topic_prefix + topic not in missing]
        server = self._database.server
        if (server, there) == self._trusted and not await self._must_look_again(server):
            return ()
        forgotten = self._forgotten
        try:
            found = await self._compare(there)
        except DatabaseRestored:
            await comparison.forget(self._database, self._lane)
            raise
        unled = [partition for partition in found if partition.topic in self._own]
        if server is not None and not unled and self._own.isdisjoint(missing):
            await comparison.note(self._database, self._lane, server)
        if forgotten == self._forgotten:
            self._trusted = server, there
        return unled

    async def _must_look_again(self, server: datetime | None) -> bool:
        """Whether the lane is not noted as compared, or another lane has found a loss, maybe in another process."""
        if server is None or time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + LOOK_SECONDS
        return not await comparison.is_noted(self._database, self._lane, server)

    async def _compare(self, topics: Sequence[str]) -> Collection[TopicPartition]:
        """Compare these topics, except those of other lanes that Kafka denies access to. Raises like `check`.

        Those keep only their own lane from publishing.
        """
        while True:
            try:
                return await refuse_restored(self._database, self._kafka, self._topic_prefix, topics)
            except TopicAuthorizationFailedError as error:
                denied = denied_names(error)
                allowed = [topic for topic in topics if self._topic_prefix + topic not in denied]
                if denied & self._own or len(allowed) == len(topics):
                    raise
                topics = allowed

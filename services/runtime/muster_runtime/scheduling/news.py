"""News before deadlines: after an outage, a service reads earlier events before it handles late deadlines.

Otherwise, it would announce, for example, an overdue payment of an agency that has already withdrawn.
"""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from muster_contracts import topics
from muster_runtime.canceling import is_canceled
from muster_runtime.clock import Clock
from muster_runtime.database.transactions import Database
from muster_runtime.messaging import offsets, parked
from muster_runtime.messaging.client_closing import close_consumer
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.offsets import Partition
from muster_runtime.messaging.producers import partition_of

# A deadline this late was missed during an outage: in normal operation, even a second is unusual.
LATE = timedelta(seconds=5)

# How long Kafka may take to return the ends of the topics.
PATIENCE_SECONDS = 10

# What a late deadline waits for until Kafka has returned them.
ENDS_UNKNOWN = "the ends of the topics are not known yet"


class News:
    """Checks whether an agency's streams have been read up to an instant, or to their ends at a later time.

    `run` asks Kafka for the ends. No check waits for that: Kafka may be silent, and only late deadlines need the ends.
    `partitions` is the number of partitions of each topic that the service reads.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        group: str,
        kafka: KafkaConnection,
        topic_prefix: str,
        partitions: Mapping[str, int],
    ) -> None:
        self._database = database
        self._clock = clock
        self._group = group
        self._kafka = kafka
        self._prefix = topic_prefix
        self._partitions = partitions
        self._needed = asyncio.Event()
        self._looked_at: datetime | None = None
        self._ends: dict[Partition, int] = {}
        self._why_unknown = ENDS_UNKNOWN

    async def run(self) -> None:
        """Ask Kafka for the ends whenever a check needs later ones, until canceled."""
        while not is_canceled():
            await self._needed.wait()
            now = self._clock.now()
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    self._ends = await self._ask_for_ends()
                self._looked_at, self._why_unknown = now, ENDS_UNKNOWN
            except (KafkaError, OSError, TimeoutError) as error:
                self._why_unknown = await self._kafka.failure(error)
            self._needed.clear()  # the next check sets it again if it needs later ends

    async def unread(self, due: Mapping[str, datetime]) -> dict[str, str]:
        """The agencies whose deadlines wait for news, and what they wait for. `due` has each agency's due instant."""
        now = self._clock.now()
        late = {agency_id: instant for agency_id, instant in due.items() if now - instant > LATE}
        if not late or not self._partitions:
            return {}
        async with self._database.connection() as connection:
            begins = await offsets.begins(connection, self._group)
            parked_keys = {(stream.topic, stream.agency_id) for stream in await parked.streams(connection, self._group)}
        behind = {partition for partition, end in self._ends.items() if begins.get(partition, 0) < end}
        reasons = {}
        for agency_id, instant in late.items():
            if topics_parked := [topic for topic in self._partitions if (topic, agency_id) in parked_keys]:
                reasons[agency_id] = f"its stream of {topics_parked[0]} is parked"
            elif self._looked_at is None or self._looked_at < instant:
                reasons[agency_id] = self._why_unknown
                self._needed.set()
            elif unread := [f"{topic}[{number}]" for topic, number in self._of(agency_id) if (topic, number) in behind]:
                reasons[agency_id] = f"{unread[0]} has not been read yet"
        return reasons

    def _of(self, agency_id: str) -> Iterable[Partition]:
        """The partitions that contain an agency's events: on a compacted topic, all of them."""
        for topic, count in self._partitions.items():
            if topics()[topic].compacted:
                yield from ((topic, number) for number in range(count))
            else:
                yield topic, partition_of(agency_id.encode(), count)

    async def _ask_for_ends(self) -> dict[Partition, int]:
        asked = {
            TopicPartition(self._prefix + topic, number): (topic, number)
            for topic, count in self._partitions.items()
            for number in range(count)
        }
        kafka = AIOKafkaConsumer(**self._kafka.options(), enable_auto_commit=False)
        try:
            await kafka.start()
            ends = await kafka.end_offsets(list(asked))
        finally:
            await close_consumer(kafka)
        return {asked[partition]: end for partition, end in ends.items()}

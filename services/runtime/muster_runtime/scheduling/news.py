"""News before deadlines: after an outage, a service reads earlier events before it handles late deadlines.

Otherwise, it would announce, for example, an overdue payment of an agency that has already withdrawn.

Some deadlines also wait for what systems outside Muster report, even if they are not late: a person's use of a seat
keeps it from being revoked.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from muster_contracts import topics
from muster_runtime.canceling import is_canceled
from muster_runtime.clock import Clock
from muster_runtime.database.transactions import Connection, Database
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

# How long an agency's deadlines wait for an intake: long enough for an operator to act on the alert about it. Some of
# them delete data, but a partition that cannot be read must not stop them forever.
INTAKE_PATIENCE_SECONDS = 24 * 3600.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Intake:
    """Topics that a service's workers read themselves, because their producers do not number events.

    `offsets` returns where they continue in each partition, and `deferred` the first record of each of these agencies
    that was read, but waits to be applied. Deadlines of the kinds `awaited_by` wait for what was reported before them.
    """

    topics: Sequence[str]
    offsets: Callable[[Connection], Awaitable[Mapping[Partition, int]]]
    deferred: Callable[[Connection, Collection[str]], Awaitable[Mapping[str, Mapping[Partition, int]]]]
    awaited_by: Collection[str]


class Ends:
    """The ends of topics' partitions. `partitions` is the number of partitions of each topic.

    `run` asks Kafka for them. No check waits for that: Kafka may be silent.
    """

    def __init__(self, clock: Clock, kafka: KafkaConnection, topic_prefix: str, partitions: Mapping[str, int]) -> None:
        self._clock = clock
        self._kafka = kafka
        self._prefix = topic_prefix
        self._needed = asyncio.Event()
        self._found = asyncio.Event()
        self._asked_at: datetime | None = None
        self._looked_at: datetime | None = None
        self._ends: dict[Partition, int] = {}
        self.partitions = partitions
        self.why_unknown = ENDS_UNKNOWN

    async def run(self) -> None:
        """Ask Kafka for the ends whenever a check needs later ones, until canceled."""
        while not is_canceled():
            await self._needed.wait()
            self._asked_at = self._clock.now()
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    self._ends = await self._ask_for_ends()
                self._looked_at, self.why_unknown = self._asked_at, ENDS_UNKNOWN
                self._found.set()
            except (KafkaError, OSError, TimeoutError) as error:
                self.why_unknown = await self._kafka.failure(error)
            self._needed.clear()  # the next check sets it again if it needs later ends

    def forget(self) -> None:
        """Forget the known ends, and those that Kafka is returning now: `are_known` has it asked again."""
        self._asked_at = self._looked_at = None

    def are_known(self, instant: datetime | None = None) -> bool:
        """Whether they are known, as of an instant or later if one is given. If not, Kafka is asked."""
        known = self._looked_at is not None and (instant is None or self._looked_at >= instant)
        if not known:
            self._needed.set()
        return known

    async def wait(self, seconds: float) -> None:
        """Wait until Kafka has returned new ones, at most for so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._found.wait()
        self._found.clear()

    def behind(self, offsets: Mapping[Partition, int]) -> set[Partition]:
        """The partitions that were not read to their ends, if they were read up to these offsets."""
        return {partition for partition, end in self._ends.items() if offsets.get(partition, 0) < end}

    async def _ask_for_ends(self) -> dict[Partition, int]:
        kafka = AIOKafkaConsumer(**self._kafka.options(), enable_auto_commit=False)
        try:
            await kafka.start()
            return await ask_for_ends(kafka, self._prefix, self.partitions)
        finally:
            await close_consumer(kafka)


class News:
    """Checks whether an agency's streams have been read up to an instant, or to their ends at a later time.

    `ends` are those of the topics that the service reads.
    """

    def __init__(self, database: Database, clock: Clock, group: str, ends: Ends) -> None:
        self._database = database
        self._clock = clock
        self._group = group
        self._ends = ends

    async def run(self) -> None:
        """Ask Kafka for the ends of the topics when a check needs them, until canceled."""
        await self._ends.run()

    async def unread(self, due: Mapping[str, datetime]) -> dict[str, str]:
        """The agencies whose deadlines wait for news, and what they wait for. `due` has each agency's due instant."""
        now = self._clock.now()
        late = {agency_id: instant for agency_id, instant in due.items() if now - instant > LATE}
        if not late or not self._ends.partitions:
            return {}
        async with self._database.connection() as connection:
            begins = await offsets.begins(connection, self._group)
            parked_keys = {(stream.topic, stream.agency_id) for stream in await parked.streams(connection, self._group)}
        behind = self._ends.behind(begins)
        reasons = {}
        for agency_id, instant in late.items():
            if topics_parked := [topic for topic in self._ends.partitions if (topic, agency_id) in parked_keys]:
                reasons[agency_id] = f"its stream of {topics_parked[0]} is parked"
            elif not self._ends.are_known(instant):
                reasons[agency_id] = self._ends.why_unknown
            elif unread := [f"{topic}[{number}]" for topic, number in self._of(agency_id) if (topic, number) in behind]:
                reasons[agency_id] = f"{unread[0]} has not been read yet"
        return reasons

    def _of(self, agency_id: str) -> Iterable[Partition]:
        """The partitions that contain an agency's events: on a compacted topic, all of them."""
        for topic, count in self._ends.partitions.items():
            if topics()[topic].compacted:
                yield from ((topic, number) for number in range(count))
            else:
                yield topic, partition_of(agency_id.encode(), count)


class IntakeNews:
    """Checks whether an intake has been read, and applied for an agency, to its ends at an instant or later."""

    def __init__(self, database: Database, intake: Intake, ends: Ends) -> None:
        self._database = database
        self._intake = intake
        self._ends = ends
        self._since: dict[str, float] = {}
        self._given_up: set[str] = set()
        self.kinds = sorted(intake.awaited_by)

    async def run(self) -> None:
        """Ask Kafka for the ends of the intake when a check needs them, until canceled."""
        await self._ends.run()

    async def wait(self, seconds: float) -> None:
        """Wait until Kafka has returned new ends, at most for so long."""
        await self._ends.wait(seconds)

    async def unread(self, due: Mapping[str, datetime]) -> dict[str, str]:
        """The agencies whose deadlines of `kinds` wait, and what they wait for. `due` has their due instants.

        None of them waits longer than INTAKE_PATIENCE_SECONDS.
        """
        reasons = await self._reasons(due) if due else {}
        now = time.monotonic()
        self._since = {agency_id: self._since.get(agency_id, now) for agency_id in reasons}
        given_up = {each for each, since in self._since.items() if now - since > INTAKE_PATIENCE_SECONDS}
        for agency_id in given_up - self._given_up:
            _log.error("intake_no_longer_awaited", agency_id=agency_id, kinds=self.kinds, reason=reasons[agency_id])
        self._given_up = given_up
        return {agency_id: why for agency_id, why in reasons.items() if agency_id not in given_up}

    async def _reasons(self, due: Mapping[str, datetime]) -> dict[str, str]:
        async with self._database.connection() as connection:
            # In this order: a record is deferred by the transaction that moves the offset.
            offsets = await self._intake.offsets(connection)
            deferred = await self._intake.deferred(connection, due.keys())
        behind = self._ends.behind(offsets)
        reasons = {}
        for agency_id, instant in due.items():
            if not self._ends.are_known(instant):
                reasons[agency_id] = self._ends.why_unknown
            elif behind:
                topic, number = min(behind)
                reasons[agency_id] = f"{topic}[{number}] has not been read yet"
            elif waiting := self._ends.behind(deferred.get(agency_id, {})) & deferred.get(agency_id, {}).keys():
                reasons[agency_id] = f"its records of {min(waiting)[0]} wait to be applied"
        return reasons


async def ask_for_ends(
    kafka: AIOKafkaConsumer, topic_prefix: str, partitions: Mapping[str, int]
) -> dict[Partition, int]:
    """Where the partitions of topics end; `partitions` is their number. Raises KafkaError."""
    asked = {
        TopicPartition(topic_prefix + topic, number): (topic, number)
        for topic, count in partitions.items()
        for number in range(count)
    }
    ends = await kafka.end_offsets(list(asked))
    return {asked[partition]: end for partition, end in ends.items()}

"""Agencies that no event has enrolled yet. After a restore, or while a stream lags, their enrollment may still arrive.

An agency's deferred records can be parked if it is still unknown once this service has read the enrollment stream up to
an end that was asked for *after* they were deferred. Later records wait for a later end.
"""

import asyncio
import time
from collections.abc import Iterable, Set
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from muster_contracts.enrollment import AgencyEnrolled
from muster_entitlements.repository import usage_intake
from muster_entitlements.workers.usage_places import KAFKA_SECONDS
from muster_runtime.messaging import offsets, parked
from muster_runtime.messaging.kafka_topics import partitions_of
from muster_runtime.messaging.producers import partition_of
from muster_runtime.service import Runtime

# How often to ask Kafka for ends at most: use of unknown agencies may be reported all the time. The lane waits for the
# answer, so if there is none, it asks again only after a longer pause.
ASK_SECONDS = 1.0
PAUSE_SECONDS = 60.0

# How long an end is valid: after that, the topic may have been recreated.
END_SECONDS = 60.0


class End(NamedTuple):
    """Where an agency's stream ended, and the last record that was deferred by then."""

    partition: int
    offset: int
    deferred_id: int
    asked_at: float


class Strangers:
    """Remembers where the enrollment stream of each unknown agency ended when last asked."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._ends: dict[str, End] = {}
        self._ask_at = 0.0

    async def settled(self, agencies: Set[str]) -> dict[str, int]:
        """The agencies whose streams this service has read to their ends, each with the last record that this settles.

        It asks about each agency once a minute, or sooner if the agency was forgotten. Raises what is retryable.
        """
        topic, oldest = AgencyEnrolled.topic, time.monotonic() - END_SECONDS
        ends = {agency_id: end for agency_id, end in self._ends.items() if agency_id in agencies}
        self._ends = {agency_id: end for agency_id, end in ends.items() if end.asked_at > oldest}
        if (new := agencies - self._ends.keys()) and time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + PAUSE_SECONDS
            self._ends |= await self._ask(topic, new)
            self._ask_at = time.monotonic() + ASK_SECONDS
        runtime = self._runtime
        async with runtime.database.connection() as connection:
            begins = await offsets.begins(connection, runtime.group)
            streams = {(each.topic, each.agency_id) for each in await parked.streams(connection, runtime.group)}
        return {
            agency_id: end.deferred_id
            for agency_id, end in self._ends.items()
            if begins.get((topic, end.partition), 0) >= end.offset and (topic, agency_id) not in streams
        }

    def forget(self, agencies: Iterable[str]) -> None:
        """Ask again about these agencies: their settled records have been parked."""
        for agency_id in agencies:
            self._ends.pop(agency_id, None)

    async def _ask(self, topic: str, agencies: Set[str]) -> dict[str, End]:
        runtime = self._runtime
        async with runtime.database.connection() as connection:
            deferred_id = await usage_intake.find_last_deferred(connection)  # first, so that it is before the ends
        count = partitions_of(topic, runtime.settings)
        partitions = [TopicPartition(runtime.settings.topic_prefix + topic, number) for number in range(count)]
        async with (
            asyncio.timeout(KAFKA_SECONDS),
            AIOKafkaConsumer(**runtime.kafka.options(), enable_auto_commit=False) as kafka,
        ):
            ends = {partition.partition: end for partition, end in (await kafka.end_offsets(partitions)).items()}
        places = {agency_id: partition_of(agency_id.encode(), count) for agency_id in agencies}
        now = time.monotonic()
        return {agency_id: End(number, ends[number], deferred_id, now) for agency_id, number in places.items()}

"""Agencies that no event has enrolled yet: after a restore, or while a stream is behind, their enrollment may come."""

import asyncio
from collections.abc import Set

from aiokafka import AIOKafkaConsumer, TopicPartition

from muster_contracts.enrollment import AgencyEnrolled
from muster_entitlements.workers.usage_places import KAFKA_SECONDS
from muster_runtime.messaging import offsets, parked
from muster_runtime.messaging.kafka_topics import partitions_of
from muster_runtime.messaging.producers import partition_of
from muster_runtime.service import Runtime


class Strangers:
    """Remembers of each where its stream of enrollment ended when it was first asked about."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._group = runtime.settings.topic_prefix + runtime.service.name
        self._ends: dict[str, tuple[int, int]] = {}  # the partition, and its end

    async def settled(self, agencies: Set[str]) -> set[str]:
        """Those of the agencies whose streams this service has read up to those ends. Raises what is retryable."""
        topic = AgencyEnrolled.topic
        known = {agency_id: end for agency_id, end in self._ends.items() if agency_id in agencies}
        if new := agencies - known.keys():
            known |= await self._ask(topic, new)
        self._ends = known
        async with self._runtime.database.connection() as connection:
            begins = await offsets.begins(connection, self._group)
            streams = {(each.topic, each.agency_id) for each in await parked.streams(connection, self._group)}
        return {
            agency_id
            for agency_id, (partition, end) in known.items()
            if begins.get((topic, partition), 0) >= end and (topic, agency_id) not in streams
        }

    async def _ask(self, topic: str, agencies: Set[str]) -> dict[str, tuple[int, int]]:
        runtime = self._runtime
        count = partitions_of(topic, runtime.settings)
        partitions = [TopicPartition(runtime.settings.topic_prefix + topic, number) for number in range(count)]
        async with (
            asyncio.timeout(KAFKA_SECONDS),
            AIOKafkaConsumer(**runtime.kafka.options(), enable_auto_commit=False) as kafka,
        ):
            ends = {partition.partition: end for partition, end in (await kafka.end_offsets(partitions)).items()}
        places = {agency_id: partition_of(agency_id.encode(), count) for agency_id in agencies}
        return {agency_id: (number, ends[number]) for agency_id, number in places.items()}

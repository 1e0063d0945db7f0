"""The topic of use gets partitions: none is left unread, whenever they come."""

import asyncio
import json
from collections.abc import Set
from functools import partial

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewPartitions

from muster_contracts.entitlements import FeatureUsed
from muster_entitlements.workers import usage as usage_worker
from muster_entitlements.workers.usage_places import Places
from muster_operator.topics import connect
from muster_runtime.database.transactions import Database
from tests.integration.entitlements.conftest import Entitlements
from tests.integration.entitlements.test_usage import LATER, used
from tests.integration.entitlements.test_usage_intake import STRUCTURED, counts
from tests.integration.entitlements.test_usage_recovery import counting
from tests.support.eventually import eventually


async def test_partitions_that_come_while_a_lane_opens_are_read(
    front: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is slow to say where the lane continues."""
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    find, opened, go_on = Places.find, list[AIOKafkaConsumer](), asyncio.Event()

    async def find_slowly(
        database: Database, group: str, consumer: AIOKafkaConsumer, topic: str, read: Set[TopicPartition]
    ) -> Places:
        found = await find(database, group, consumer, topic, read)
        opened.append(consumer)
        await go_on.wait()
        return found

    monkeypatch.setattr(usage_worker, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(Places, "find", find_slowly)
    kafka, topic = front.service.runtime.kafka, front.service.topic_prefix + FeatureUsed.topic
    async with counting(front.service.runtime):
        await eventually(lambda: opened)
        count = len(opened[0].assignment()) + 1
        async with connect(kafka) as admin:
            await admin.create_partitions({topic: NewPartitions(total_count=count)})
        await eventually(lambda: len(opened[0].assignment()) == count)
        go_on.set()
        async with AIOKafkaProducer(**kafka.options()) as producer:
            for number in range(count):
                value = json.dumps(used(number)).encode()
                await producer.send_and_wait(topic, value, headers=STRUCTURED, partition=number)
        await eventually(partial(counts, front, count), timeout=30)

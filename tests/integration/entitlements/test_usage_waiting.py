"""Use that waits: for an enrollment that is still to be read, for its agency's own turn, or for many locks at once."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import NoOffsetForPartitionError

from muster_contracts.enrollment import AgencyEnrolled
from muster_contracts.entitlements import FeatureUsed
from muster_contracts.testing import record
from muster_entitlements.bootstrap import build
from muster_entitlements.settings import EntitlementsSettings
from muster_entitlements.workers import usage_polling
from muster_entitlements.workers.usage import UsageIntake
from muster_entitlements.workers.usage_polling import ALONE_SECONDS, PartitionsChanged, Poller
from muster_runtime.messaging.applier import Applier
from muster_runtime.messaging.producers import partition_of
from muster_runtime.messaging.record_reader import Record
from muster_runtime.messaging.subscriptions import Subscriptions
from muster_runtime.process.roles import Role
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_usage import LATER, used
from tests.integration.entitlements.test_usage_intake import count_all, counts, put
from tests.integration.runtime.core.conftest import delay_fetches, put_unreadable
from tests.support.clocks import ShiftedClock
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.limits import LIMITS
from tests.support.services import PARTITIONS, ServiceRunner


async def test_use_before_its_enrollment_is_read_waits_and_is_counted(run_service: ServiceRunner) -> None:
    """After a restore, the workers start before the consumer has read what the database lacks."""
    service = await run_service(build, EntitlementsSettings, roles=frozenset())
    service.clock.move(LATER)
    front, admin = Entitlements(service), service.admin
    await service.publish(front.enrolled(5), time=START)
    await put(front, used(1), used(2, agency_id="NSF"))
    intake = UsageIntake(service.runtime)
    await count_all(intake)
    assert await intake.deferred.count() is False
    assert await admin.fetchval("select count(*) from usage_deferred") == 2
    consumer = frozenset({Role.CONSUMER})
    await run_service(build, EntitlementsSettings, roles=consumer, beside=service, clock=service.clock)

    async def none_waits() -> bool:
        await intake.deferred.count()
        return bool(await admin.fetchval("select not exists (select from usage_deferred)"))

    await eventually(none_waits)
    assert await counts(front, 1)
    reasons = [row["reason"] for row in await admin.fetch("select reason from usage_parked")]
    assert reasons == ["data.agency_id must be an agency that has been enrolled"]


async def test_an_agency_ahead_of_the_clock_dates_no_other_agencys_use(run_service: ServiceRunner) -> None:
    clock = ShiftedClock(timedelta())
    service = await run_service(build, EntitlementsSettings, roles=frozenset(), clock=clock)
    runtime, admin, front = service.runtime, service.admin, Entitlements(service)
    subscriptions = Subscriptions(runtime.service.subscriptions, service="entitlements", group="g", clock=clock)
    ahead, now = clock.now() + timedelta(seconds=50), clock.now() - timedelta(seconds=5)
    enrolled = []
    for agency_id, at in (("NASA", ahead), ("DOE", now)):
        event = AgencyEnrolled(
            agency_id=agency_id,
            enrollment_id="enr_1",
            agency_name="An agency",
            seats=5,
            starts_at=now - timedelta(days=100),
            ends_at=now + timedelta(days=200),
        )
        made = record(event, sequence=1, time=at)
        enrolled.append(Record(made.topic, agency_id, 0, 1, made.key, made.value, made.headers))
    assert await Applier(runtime.database, subscriptions, LIMITS).apply(enrolled) == []
    await put(front, used(1, at=now), used(2, at=now, agency_id="DOE"))
    intake = UsageIntake(runtime)
    await count_all(intake)
    await intake.deferred.count()
    assert await admin.fetchval("select count(*) from usage_sum where subject_ref = ''") == 2
    latest = {row["agency_id"]: row["latest"] for row in await admin.fetch("select * from agency_instant")}
    assert latest["DOE"] < clock.now() + timedelta(seconds=1) < latest["NASA"] == ahead


async def test_agencies_that_were_deferred_together_are_counted_together(front: Entitlements) -> None:
    agencies = [f"A{number}" for number in range(5)]
    await front.service.publish(*(front.enrolled(5).model_copy(update={"agency_id": each}) for each in agencies))
    runtime, admin = front.service.runtime, front.service.admin

    async def all_are_enrolled() -> bool:
        return bool(await admin.fetchval("select count(*) = 5 from pool"))

    await eventually(all_are_enrolled)
    front.service.clock.move(LATER)
    intake = UsageIntake(runtime)
    async with runtime.database.write(*agencies, context=CONTEXT):
        await put(front, *(used(each, agency_id=each) for each in agencies))
        await count_all(intake)
        assert await intake.deferred.count() is False
    assert await admin.fetchval("select count(*) from usage_deferred") == 5
    assert await intake.deferred.count() is False
    assert await admin.fetchval("select count(*) from usage_sum where subject_ref = ''") == 5


async def test_a_client_that_starts_over_on_the_same_partitions_is_replaced(front: Entitlements) -> None:
    """As aiokafka does when its metadata lacks the topic for a moment: the client no longer knows where it was."""
    await put(front, used(1))
    intake = UsageIntake(front.service.runtime)
    async with intake._opened() as consumer:
        poller = Poller(intake._runtime, consumer, intake._places.next)
        subscription: Any = consumer._subscription
        partitions = list(consumer.assignment())
        subscription.assign_from_subscribed([])
        subscription.assign_from_subscribed(partitions)
        with pytest.raises((PartitionsChanged, NoOffsetForPartitionError)):
            await poller.poll(2)


async def test_a_record_now_and_then_keeps_no_lane_polling_one_partition_alone(front: Entitlements) -> None:
    """A record of another partition cannot be decoded, so the partitions are polled one by one."""
    damaged = partition_of(b"NASA", PARTITIONS)
    intake = UsageIntake(front.service.runtime)
    async with intake._opened() as consumer:
        poller = Poller(intake._runtime, consumer, intake._places.next)
        await put_unreadable(front.service, "NASA", FeatureUsed.topic)
        polling = asyncio.create_task(poller.poll(1_000))
        sent = 0
        while not polling.done():
            await front.service.producer.put_raw(
                FeatureUsed.topic, key=None, value=b"{}", headers=[], partition=(damaged + 1) % PARTITIONS
            )
            sent += 1
            assert sent < 100
            await asyncio.wait([polling], timeout=ALONE_SECONDS / 2)


async def test_a_damaged_record_stops_no_lane_whose_kafka_answers_slowly(
    front: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer takes longer than the partitions are polled one by one."""
    monkeypatch.setattr(usage_polling, "ALONE_SECONDS", 0.05)
    delay_fetches(monkeypatch, 0.3)
    damaged = partition_of(b"NASA", PARTITIONS)
    good = (damaged + 1) % PARTITIONS
    await put_unreadable(front.service, "NASA", FeatureUsed.topic)
    await front.service.producer.put_raw(FeatureUsed.topic, key=None, value=b"{}", headers=[], partition=good)
    intake = UsageIntake(front.service.runtime)
    polled: set[int] = set()
    async with intake._opened() as consumer:
        poller = Poller(intake._runtime, consumer, intake._places.next)
        async with asyncio.timeout(30):
            while not (good in polled and poller._waiting):
                polled |= {place.partition for place in await poller.poll(10)}
    assert polled == {good}


async def test_each_partition_gets_an_equal_share_of_a_batch(front: Entitlements) -> None:
    topic = front.service.topic_prefix + FeatureUsed.topic
    put_raw = front.service.producer.put_raw
    for partition, number in ((0, 20), (1, 5)):
        for _ in range(number):
            await put_raw(FeatureUsed.topic, key=None, value=b"{}", headers=[], partition=partition)
    intake = UsageIntake(front.service.runtime)
    polled: list[dict[TopicPartition, int]] = []
    async with intake._opened() as consumer:
        poller = Poller(intake._runtime, consumer, intake._places.next)
        while sum(sum(each.values()) for each in polled) < 25:
            batch = await poller.poll(10)
            polled.append({partition: len(records) for partition, records in batch.items()})
    both = [each for each in polled if len(each) == 2]
    assert both
    assert all(sum(each.values()) <= 10 for each in polled)
    assert both[0][TopicPartition(topic, 1)] >= 3

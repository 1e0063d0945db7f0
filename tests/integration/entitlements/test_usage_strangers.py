"""Use of agencies not known to be enrolled: a bounded amount waits for what the service has not read yet."""

from collections.abc import Iterable, Set
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from structlog.testing import capture_logs

from muster_contracts.enrollment import AgencyEnrolled
from muster_contracts.testing import record
from muster_entitlements.bootstrap import build
from muster_entitlements.handlers import parked_usage
from muster_entitlements.settings import EntitlementsSettings
from muster_entitlements.workers import usage_deferred, usage_strangers
from muster_entitlements.workers.usage import UsageIntake
from muster_entitlements.workers.usage_batches import ParkedFull
from muster_entitlements.workers.usage_deferred import DeferredFull
from muster_entitlements.workers.usage_strangers import Strangers
from muster_operator.topics import delete_topics
from muster_runtime.messaging.producers import partition_of
from muster_runtime.process.roles import Role
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_usage import LATER, used
from tests.integration.entitlements.test_usage_intake import count_all, counts, put
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.services import PARTITIONS, ServiceRunner


@pytest.fixture
async def alone(run_service: ServiceRunner, monkeypatch: pytest.MonkeyPatch) -> Entitlements:
    """The service without any role: nothing is read but what a test reads."""
    monkeypatch.setattr(usage_strangers, "ASK_SECONDS", 0.0)
    service = await run_service(build, EntitlementsSettings, roles=frozenset())
    service.clock.move(LATER)
    return Entitlements(service)


async def rows(entitlements: Entitlements, table: str) -> int:
    count: int = await entitlements.service.admin.fetchval(f"select count(*) from {table}")
    return count


async def enroll_beside(alone: Entitlements) -> int:
    """Enroll an agency in NASA's partition, whose number this returns. Nobody reads the enrollment."""
    number = partition_of(b"NASA", PARTITIONS)
    beside = next(f"A{n}" for n in range(100) if partition_of(f"A{n}".encode(), PARTITIONS) == number)
    await alone.service.publish(alone.enrolled(5).model_copy(update={"agency_id": beside}), time=START)
    return number


async def note_read(alone: Entitlements, partition: int) -> None:
    """Store that the first enrollment of a partition is read."""
    await alone.service.admin.execute(
        "insert into consumed_partition (consumer_group, topic, kafka_partition, next_offset) values ($1, $2, $3, 1)",
        alone.service.runtime.group,
        AgencyEnrolled.topic,
        partition,
    )


async def test_use_of_a_former_stranger_waits_for_its_enrollment(
    alone: Entitlements, run_service: ServiceRunner
) -> None:
    service, intake = alone.service, UsageIntake(alone.service.runtime)
    await put(alone, used(1))
    await count_all(intake)
    await intake.deferred.count()
    assert await rows(alone, "usage_parked") == 1
    await service.publish(alone.enrolled(5), time=START)
    await put(alone, used(2), used(3))
    await count_all(intake)
    await intake.deferred.count()
    assert (await rows(alone, "usage_parked"), await rows(alone, "usage_deferred")) == (1, 2)
    consumer = frozenset({Role.CONSUMER})
    await run_service(build, EntitlementsSettings, roles=consumer, beside=service, clock=service.clock)

    async def both_are_counted() -> bool:
        await intake.deferred.count()
        return await counts(alone, 2)

    await eventually(both_are_counted)


async def test_use_after_an_enrollment_is_not_parked_with_use_before_it(alone: Entitlements) -> None:
    service, intake = alone.service, UsageIntake(alone.service.runtime)
    number = await enroll_beside(alone)
    await put(alone, used(1))
    await count_all(intake)
    await intake.deferred.count()  # the stream ends after the other agency's enrollment
    await service.publish(alone.enrolled(5), time=START)
    await put(alone, used(2), used(3))
    await count_all(intake)
    await note_read(alone, number)
    for _ in range(2):
        await intake.deferred.count()
        assert (await rows(alone, "usage_parked"), await rows(alone, "usage_deferred")) == (1, 2)


async def test_use_of_an_agency_whose_enrollment_is_parked_waits(
    alone: Entitlements, run_service: ServiceRunner
) -> None:
    service, intake, enrolled = alone.service, UsageIntake(alone.service.runtime), alone.enrolled(5)
    consumer = frozenset({Role.CONSUMER})
    await run_service(build, EntitlementsSettings, roles=consumer, beside=service, clock=service.clock)
    after_gap = record(enrolled, sequence=2, time=START)
    await service.producer.put_raw(enrolled.topic, key=after_gap.key, value=after_gap.value, headers=after_gap.headers)
    await eventually(lambda: rows(alone, "parked_stream"))
    read = "select exists (select from consumed_partition where topic = $1 and next_offset = 1)"
    await eventually(lambda: service.admin.fetchval(read, enrolled.topic))
    await put(alone, used(1))
    await count_all(intake)
    await intake.deferred.count()
    assert (await rows(alone, "usage_parked"), await rows(alone, "usage_deferred")) == (0, 1)


async def test_the_lane_does_not_wait_again_and_again_for_ends_that_kafka_does_not_tell(
    alone: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_strangers, "KAFKA_SECONDS", 0.5)
    intake, runtime = UsageIntake(alone.service.runtime), alone.service.runtime
    await put(alone, used(1))
    await count_all(intake)
    await delete_topics(runtime.kafka, [alone.service.topic_prefix + AgencyEnrolled.topic])
    with capture_logs() as logs:
        for _ in range(3):
            await intake.deferred.count()
    assert [log["event"] for log in logs if log["log_level"] == "warning"] == ["usage_unknown_agencies_wait"]


async def test_what_waits_is_bounded(alone: Entitlements, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the enrollments are not read."""
    monkeypatch.setattr(usage_deferred, "MOST_DEFERRED", 3)
    await alone.service.publish(alone.enrolled(5), time=START)
    intake = UsageIntake(alone.service.runtime)
    for n in range(3):
        await put(alone, used(n))
        await count_all(intake)
        await intake.deferred.count()
    await put(alone, used(4))
    with pytest.raises(DeferredFull):
        await count_all(intake)
    assert await rows(alone, "usage_deferred") == 3


async def test_an_agency_whose_use_cannot_be_parked_defers_no_more(
    front: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked_usage, "MOST_PARKED", 1)
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    runtime = front.service.runtime
    intake = UsageIntake(runtime)
    await put(front, b"{")
    await count_all(intake)
    assert await rows(front, "usage_parked") == 1
    async with runtime.database.write("NASA", context=CONTEXT):
        await put(front, used(1, feature="telepathy"))
        await count_all(intake)
    assert await intake.deferred.count() is False
    await put(front, used(2))
    with pytest.raises(ParkedFull):
        await count_all(intake)
    assert await rows(front, "usage_deferred") == 1
    await front.service.admin.execute("delete from usage_parked")
    await intake.deferred.count()
    await count_all(intake)
    assert (await rows(front, "usage_parked"), await counts(front, 1)) == (1, True)


async def test_use_that_could_not_be_parked_and_waits_no_longer_keeps_no_other_from_being_deferred(
    front: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database has gone back, or another process has counted what waited."""
    monkeypatch.setattr(parked_usage, "MOST_PARKED", 1)
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    intake = UsageIntake(front.service.runtime)
    await put(front, b"{")
    await count_all(intake)
    for number, feature in ((1, "telepathy"), (2, "deep-research")):
        async with front.service.runtime.database.write("NASA", context=CONTEXT):
            await put(front, used(number, feature=feature))
            await count_all(intake)
        assert await rows(front, "usage_deferred") == 1
        if feature == "telepathy":
            await intake.deferred.count()
            await front.service.admin.execute("delete from usage_deferred")


async def test_use_of_an_agency_that_is_enrolled_while_the_ends_are_asked_for_is_counted(
    front: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    front.service.clock.move(LATER)
    settled = Strangers.settled

    async def settled_and_enrolled(strangers: Strangers, agencies: Set[str]) -> dict[str, int]:
        found = await settled(strangers, agencies)
        await front.enroll(cap=5)
        return found

    monkeypatch.setattr(Strangers, "settled", settled_and_enrolled)
    intake = UsageIntake(front.service.runtime)
    await put(front, used(1))
    await count_all(intake)
    await intake.deferred.count()
    assert await rows(front, "usage_parked") == 0
    await intake.deferred.count()
    assert await counts(front, 1)


async def test_use_that_is_deferred_after_the_ends_were_asked_for_waits_for_later_ones(
    alone: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = UsageIntake(alone.service.runtime)
    ends: Any = AIOKafkaConsumer.end_offsets

    async def ends_before_more_use(consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition]) -> Any:
        found = await ends(consumer, partitions)
        if {partition.topic for partition in partitions} == {alone.service.topic_prefix + AgencyEnrolled.topic}:
            await put(alone, used(2))
            await count_all(UsageIntake(alone.service.runtime))
        return found

    monkeypatch.setattr(AIOKafkaConsumer, "end_offsets", ends_before_more_use)
    await put(alone, used(1))
    await count_all(intake)
    await intake.deferred.count()
    assert (await rows(alone, "usage_parked"), await rows(alone, "usage_deferred")) == (1, 1)


async def test_further_use_of_a_stranger_waits_no_longer_than_the_first(alone: Entitlements) -> None:
    intake = UsageIntake(alone.service.runtime)
    for number in (1, 2):
        await put(alone, used(number))
        await count_all(intake)
        await intake.deferred.count()
        assert await rows(alone, "usage_parked") == number


async def test_more_use_of_a_stranger_than_a_batch_holds_is_parked_step_by_step(
    alone: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_deferred, "BATCH_RECORDS", 1)
    monkeypatch.setattr(usage_strangers, "ASK_SECONDS", 60.0)  # the rest needs no later ends
    intake = UsageIntake(alone.service.runtime)
    await put(alone, used(1), used(2, agency_id="NSF"))
    await count_all(intake)
    for number in (1, 2):
        await intake.deferred.count()
        parked = await alone.service.admin.fetch("select kafka_offset from usage_parked order by id")
        assert [row["kafka_offset"] for row in parked] == [*range(number)]


async def test_an_end_is_asked_for_again_after_a_while(alone: Entitlements, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_strangers, "END_SECONDS", 0.0)
    intake = UsageIntake(alone.service.runtime)
    number = await enroll_beside(alone)
    for use in (1, 2):
        await put(alone, used(use))
        await count_all(intake)
        await intake.deferred.count()
        assert await rows(alone, "usage_parked") == 0
    await note_read(alone, number)
    await intake.deferred.count()
    assert await rows(alone, "usage_parked") == 2  # with the first end, only the first would be

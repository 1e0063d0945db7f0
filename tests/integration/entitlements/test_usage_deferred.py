"""Use that waits for its agency's lock: the others pass, and each lane counts what it has deferred itself."""

import asyncio
import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from muster_contracts.entitlements import FeatureUsed
from muster_entitlements.repository import usage_intake
from muster_entitlements.workers import usage_deferred
from muster_entitlements.workers.usage import UsageIntake
from muster_entitlements.workers.usage_places import Lane
from muster_runtime.messaging.producers import partition_of
from muster_runtime.process.parts import WORKER_LOCK_SECONDS
from tests.integration.entitlements.conftest import Entitlements
from tests.integration.entitlements.test_usage import ADA, LATER, sums, used
from tests.integration.entitlements.test_usage_intake import STRUCTURED, count_all, counts, put
from tests.integration.entitlements.test_usage_recovery import make_again, put_first
from tests.integration.runtime.core.test_held_locks import busy
from tests.support.contexts import CONTEXT
from tests.support.services import PARTITIONS


async def of_agencies(front: Entitlements) -> dict[str, int]:
    """How much of each agency's use is counted."""
    rows = await front.service.admin.fetch("select agency_id, used from usage_sum where subject_ref = ''")
    return {row["agency_id"]: row["used"] for row in rows}


async def test_an_agency_whose_lock_is_held_lets_the_others_pass_and_is_counted_once_afterward(
    front: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(front, agency="NSF")
    for agency in (front, other):
        await agency.enroll(cap=5)
    front.service.clock.move(LATER)
    runtime, admin = front.service.runtime, front.service.admin
    first = [used(1), used(2, agency_id="NSF"), used(3, feature="telepathy"), used(1)]
    second = [used(4), used(5, amount=2, agency_id="NSF"), b"{"]
    intake = UsageIntake(runtime)
    async with runtime.database.write("NASA", context=CONTEXT):
        for events in (first, second):
            await put(front, *events)
            await count_all(intake)
        assert await of_agencies(front) == {"NSF": 3}
        assert await usage_intake.find_oldest_deferred(admin) == LATER
        await intake.deferred.count()  # still held
    assert await admin.fetchval("select count(*) from usage_deferred") == 4

    async def killed(*_arguments: Any) -> None:
        raise ConnectionError("the process was killed")

    with monkeypatch.context() as patch:
        patch.setattr(usage_intake, "add_parked", killed)  # after the sums, before the commit
        with pytest.raises(ConnectionError):
            await intake.deferred.count()
    assert await of_agencies(front) == {"NSF": 3}
    intake = UsageIntake(runtime)
    await put(front, used(6))  # it waits behind those that came before
    await count_all(intake)
    assert await of_agencies(front) == {"NSF": 3}
    for _ in range(2):
        await intake.deferred.count()
    assert await of_agencies(front) == {"NASA": 3, "NSF": 3}
    assert await admin.fetchval("select count(*) from usage_deferred") == 0
    assert await admin.fetchval("select count(*) from usage_parked") == 2
    await put(front, used(7))
    await count_all(intake)
    assert await of_agencies(front) == {"NASA": 4, "NSF": 3}


async def test_use_of_an_agency_that_is_always_busy_is_counted(front: Entitlements) -> None:
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    intake = UsageIntake(front.service.runtime)
    async with busy(front.service, "NASA"):
        async with front.service.runtime.database.write("NASA", context=CONTEXT):
            await put(front, used(1))
            await count_all(intake)
        for _ in range(5):
            await intake.deferred.count()
        assert await counts(front, 1)


async def test_a_lock_that_is_held_for_long_costs_no_long_wait_again(front: Entitlements) -> None:
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    intake = UsageIntake(front.service.runtime)
    async with front.service.runtime.database.write("NASA", context=CONTEXT):
        await put(front, used(1))
        await count_all(intake)
        await intake.deferred.count()
        async with asyncio.timeout(WORKER_LOCK_SECONDS):
            await intake.deferred.count()


async def test_after_a_long_wait_for_a_busy_agency_the_next_ones_are_short(front: Entitlements) -> None:
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    intake = UsageIntake(front.service.runtime)
    async with busy(front.service, "NASA", callers=8):
        for number in (1, 2):
            async with front.service.runtime.database.write("NASA", context=CONTEXT):
                await put(front, used(number))
                await count_all(intake)
            await intake.deferred.count()
        assert await counts(front, 1)


async def test_long_waits_for_a_busy_agency_do_not_pause_while_its_records_take_much_of_the_room(
    front: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_deferred, "MOST_DEFERRED", 6)
    monkeypatch.setattr(usage_deferred, "BATCH_RECORDS", 1)
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    intake = UsageIntake(front.service.runtime)
    async with busy(front.service, "NASA", callers=8):
        async with front.service.runtime.database.write("NASA", context=CONTEXT):
            await put(front, *map(used, range(5)))
            await count_all(intake)
        for _ in range(5):
            await intake.deferred.count()
        assert await counts(front, 3)  # two are left, and that is less than half of the room


async def test_a_busy_agency_with_few_records_brings_no_pause_for_one_whose_records_take_much_of_the_room(
    front: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_deferred, "MOST_DEFERRED", 10)
    monkeypatch.setattr(usage_deferred, "BATCH_RECORDS", 2)
    for agency in (front, replace(front, agency="NSF")):
        await agency.enroll(cap=5)
    front.service.clock.move(LATER)
    database, intake = front.service.runtime.database, UsageIntake(front.service.runtime)
    async with busy(front.service, "NASA", callers=8), busy(front.service, "NSF", callers=8):
        async with database.write("NASA", context=CONTEXT), database.write("NSF", context=CONTEXT):
            await put(front, used(0, agency_id="NSF"), *map(used, range(9)))
            await count_all(intake)
        for _ in range(5):  # NASA has the first turn, NSF the second
            await intake.deferred.count()
    left = await front.service.admin.fetch("select waits_for from usage_deferred")
    assert [row["waits_for"] for row in left] == ["NASA"] * 3


async def test_a_held_lock_keeps_no_other_deferred_agency_from_being_counted(front: Entitlements) -> None:
    other = replace(front, agency="NSF")
    for agency in (front, other):
        await agency.enroll(cap=5)
    front.service.clock.move(LATER)
    database, intake = front.service.runtime.database, UsageIntake(front.service.runtime)
    async with database.write("NASA", context=CONTEXT):
        async with database.write("NSF", context=CONTEXT):
            await put(front, used(1), used(2, agency_id="NSF"))
            await count_all(intake)
        await intake.deferred.count()  # NASA's turn is first
    counted = await front.service.admin.fetch("select distinct agency_id from usage_sum")
    assert [row["agency_id"] for row in counted] == ["NSF"]


@pytest.mark.parametrize(("days", "in_time"), [(0, 1), (6, 0)])
async def test_use_that_arrived_before_its_period_closed_counts_unless_it_waited_for_days(
    front: Entitlements, days: int, in_time: int
) -> None:
    await front.enroll(cap=5)
    service, closes, hour = front.service, datetime(2025, 10, 6, tzinfo=UTC), timedelta(hours=1)
    service.clock.move(closes - hour)
    intake = UsageIntake(service.runtime)
    async with service.runtime.database.write("NASA", context=CONTEXT):
        await put(front, used(1, at=closes - timedelta(days=6)))
        await count_all(intake)
    service.clock.move(closes + hour + timedelta(days=days))
    await put(front, used(2, at=closes - timedelta(days=6)))  # it waits behind the first one, but is too late
    await count_all(intake)
    await intake.deferred.count()
    assert sum((await sums(front)).values()) == 2 * in_time  # of her, and of the agency
    assert await service.admin.fetchval("select count(*) from usage_parked") == 2 - in_time


async def test_lanes_share_the_partitions_and_what_each_has_deferred(front: Entitlements) -> None:
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    runtime, admin = front.service.runtime, front.service.admin
    lanes = [UsageIntake(runtime, Lane(number, 2)) for number in range(2)]

    async def put_on(partition: int, *numbers: int) -> None:
        for number in numbers:
            value = json.dumps(used(number)).encode()
            await front.service.producer.put_raw(
                FeatureUsed.topic, key=None, value=value, headers=STRUCTURED, partition=partition
            )

    async with runtime.database.write("NASA", context=CONTEXT):
        for partition in range(2):
            await put_on(partition, 1, partition + 2)  # the first is the same use
            await count_all(lanes[partition])
    assert await admin.fetchval("select count(*) from usage_deferred") == 4
    lanes = [UsageIntake(runtime, Lane(number, 2)) for number in range(2)]
    for lane, counted in zip(lanes, (2, 3), strict=True):
        await count_all(lane)  # nothing is new
        for _ in range(2):
            await lane.deferred.count()
        assert (await sums(front))[ADA, "10-05"] == counted
    await put_on(0, 4)
    for lane, counted in zip(reversed(lanes), (3, 4), strict=True):
        await count_all(lane)
        assert (await sums(front))[ADA, "10-05"] == counted


async def test_agencies_whose_use_waits_take_turns_and_no_turn_takes_long(
    front: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    agencies = ("NASA", "NSF")
    for agency in agencies:
        await replace(front, agency=agency).enroll(cap=5)
    front.service.clock.move(LATER)
    monkeypatch.setattr(usage_deferred, "BATCH_RECORDS", 1)
    ticks = itertools.count()  # each look at the time takes so long that there is time for one batch
    step = usage_deferred.COUNT_SECONDS * 0.6
    monkeypatch.setattr(usage_deferred, "time", SimpleNamespace(monotonic=lambda: next(ticks) * step))
    intake = UsageIntake(front.service.runtime)
    async with front.service.runtime.database.write(*agencies, context=CONTEXT):
        await put(front, *(used(f"{agency} {n}", agency_id=agency) for agency in agencies for n in range(2)))
        await count_all(intake)
    for expected in ({"NASA": 1}, {"NASA": 1, "NSF": 1}, {"NASA": 2, "NSF": 1}, {"NASA": 2, "NSF": 2}):
        assert await intake.deferred.count()
        assert await of_agencies(front) == expected


async def test_a_lane_that_starts_continues_with_its_own_agency_that_has_waited_for_longest(
    front: Entitlements,
) -> None:
    front.service.clock.move(LATER)
    runtime, agencies = front.service.runtime, ["NSF", "NASA", "DOE", "HHS"]  # which are not enrolled
    await put(front, *(used(agency, agency_id=agency) for agency in agencies))
    await count_all(UsageIntake(runtime))
    lanes = [UsageIntake(runtime, Lane(number, 2)).deferred for number in range(2)]
    for lane in lanes:
        await lane.read()
    assert sorted(list(lane.agencies) for lane in lanes) == [[], agencies]


async def test_each_agencys_first_deferred_record_of_a_partition_is_known(front: Entitlements) -> None:
    """Deadlines wait for it."""
    front.service.clock.move(LATER)
    await put(front, *(used(number, agency_id=agency) for number, agency in enumerate(("NSF", "NASA", "NASA"))))
    await count_all(UsageIntake(front.service.runtime))
    place = FeatureUsed.topic, partition_of(b"NASA", PARTITIONS)
    found = await usage_intake.list_deferred(front.service.admin, ["NASA", "DOE"])
    assert found == {"NASA": {place: 1}}


async def test_use_that_waits_is_kept_beside_that_of_a_recreated_topic_with_the_same_offset(
    front: Entitlements,
) -> None:
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    for number in (1, 2):
        await make_again(front, partitions=1)
        intake = UsageIntake(front.service.runtime)
        async with front.service.runtime.database.write("NASA", context=CONTEXT):
            await put_first(front, used(number))
            await count_all(intake)
    assert await front.service.admin.fetchval("select array_agg(kafka_offset) from usage_deferred") == [0, 0]
    await intake.deferred.count()
    assert await counts(front, 2)

"""Reported use counts the same however its events are cut into batches, and in whatever order they come."""

from datetime import timedelta

from muster_entitlements.workers.usage import UsageIntake
from tests.integration.entitlements.conftest import Entitlements
from tests.integration.entitlements.test_usage import ADA, LATER, report, sums, used
from tests.integration.entitlements.test_usage_intake import count_all, put

DAY = timedelta(days=1)


async def test_one_id_counts_once_on_each_day_also_within_a_batch(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=5)
    entitlements.service.clock.move(LATER)
    both = [used(1, at=LATER - DAY), used(1)]
    other = used(1, amount=2)
    body = (await report(entitlements, *both, other)).json()
    assert (body["counted"], body["repeated"], [each["index"] for each in body["refused"]]) == (2, 0, [2])
    assert (await sums(entitlements))[ADA, "10-05"] == 2
    assert (await report(entitlements, *both)).json() == {"counted": 0, "repeated": 2, "refused": []}


async def test_one_id_counts_once_on_each_day_also_from_the_topic(front: Entitlements) -> None:
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    await put(front, used(1, at=LATER - DAY), used(1))
    await count_all(UsageIntake(front.service.runtime))
    assert await sums(front) == {(ADA, "10-05"): 2, ("", "10-05"): 2}
    assert await front.service.admin.fetchval("select count(*) from usage_parked") == 0

"""What copies know of quotas: that of the current period, from its start to its end."""

from datetime import UTC, datetime, timedelta
from typing import Any

from muster_entitlements_client import EntitlementsClient
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_catalog import FRONTIER, publish, rolled_out
from tests.integration.entitlements.test_snapshots import following
from tests.integration.entitlements.test_usage import report, used
from tests.support.eventually import eventually

SECOND = timedelta(seconds=1)
NOTES: dict[str, Any] = FRONTIER | {"key": "notes", "name": "Notes", "mode": "quota", "quota": {"limit": 10}}


async def test_use_of_the_next_period_is_told_when_it_begins(entitlements: Entitlements) -> None:
    """A reporter's clock may be ahead, so use of the next month can arrive in this one."""
    await publish(entitlements, [NOTES], "new-agencies")
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    month = datetime(2025, 9, 1, tzinfo=UTC)
    service = entitlements.service
    service.clock.move(month - 30 * SECOND)
    use = {"subject": ada, "feature": "notes", "amount": 10}
    assert (await entitlements.post("usage/consume", use)).status_code == 200
    ahead = used(1, ada, month + 5 * SECOND, amount=12, feature="notes")
    assert (await report(entitlements, ahead)).json()["counted"] == 1
    assert await service.admin.fetchval("select used from quota_use where subject_ref <> ''") == 10
    async with following(entitlements) as client:
        for now in (month - SECOND, month + SECOND):
            service.clock.move(now)

            async def told(client: Any = client) -> Any:
                answer, http = client.check(ada, "notes"), await entitlements.check("ada", "notes")
                same = (answer.reason, answer.used) == (http["reason"], http["used"])
                return http if same and http["reason"] == "quota_used_up" else None

            await eventually(told)
    assert await service.admin.fetchval("select starts_at from quota_use where subject_ref <> ''") == month


async def test_a_threshold_that_is_crossed_ahead_is_told_when_its_period_begins(entitlements: Entitlements) -> None:
    await publish(entitlements, [NOTES], "new-agencies")
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    month = datetime(2025, 9, 1, tzinfo=UTC)
    entitlements.service.clock.move(month - 30 * SECOND)
    ahead = used(1, ada, month + 5 * SECOND, amount=6, feature="notes")
    assert (await report(entitlements, ahead)).json()["counted"] == 1
    async with following(entitlements) as client:
        entitlements.service.clock.move(month + SECOND)

        async def told() -> bool:
            answer = client.check(ada, "notes")
            return (answer.reason, answer.used) == ("quota", 6)

        await eventually(told)


async def test_a_lower_quota_is_told_when_its_grant_begins_even_for_a_feature_that_is_gone(
    entitlements: Entitlements,
) -> None:
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    begins = entitlements.service.clock.now() + timedelta(days=2)
    body = {"feature": "notes", "mode": "quota", "subject": ada, "reason": "pilot"}
    for limit, dates in ((10, {"ends_at": begins.isoformat()}), (4, {"starts_at": begins.isoformat()})):
        await publish(entitlements, [FRONTIER, NOTES | {"quota": {"limit": limit}}], "new-agencies")
        assert (await entitlements.post("grants", body | dates)).status_code == 201
    await publish(entitlements, [FRONTIER], "new-agencies")
    use = {"subject": ada, "feature": "notes", "amount": 4}
    assert (await entitlements.post("usage/consume", use)).status_code == 200
    async with following(entitlements) as client:
        assert client.check(ada, "notes").verdict == "allowed"
        entitlements.service.clock.move(begins)

        async def told() -> bool:
            answer, http = client.check(ada, "notes"), await entitlements.check("ada", "notes")
            return (answer.reason, answer.used) == (http["reason"], http["used"]) == ("quota_used_up", 4)

        await eventually(told)


async def used_up(entitlements: Entitlements, client: EntitlementsClient, subject: str, feature: str) -> None:
    """Wait until the copy refuses what the service refuses: 30 uses are above the quota of 25."""

    async def told() -> bool:
        answer, http = client.check(subject, feature), await entitlements.check("ada", feature)
        return (answer.reason, answer.used) == (http["reason"], http["used"]) == ("quota_used_up", 30)

    await eventually(told)


async def test_late_use_from_before_a_grant_that_uses_up_its_quota_is_told(entitlements: Entitlements) -> None:
    """It happened in the unlimited trial, so no quota is charged."""
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    granted_at = START + timedelta(days=4)
    entitlements.service.clock.move(granted_at)
    body = {"feature": "deep-research", "mode": "quota", "subject": ada, "reason": "pilot"}
    assert (await entitlements.post("grants", body)).status_code == 201
    entitlements.service.clock.move(granted_at + SECOND)
    async with following(entitlements) as client:
        late = used(1, ada, granted_at - timedelta(days=1), amount=30)
        assert (await report(entitlements, late)).json()["counted"] == 1
        await used_up(entitlements, client, ada, "deep-research")


async def test_late_use_under_a_grant_that_is_over_is_told_if_it_uses_up_the_quota_that_applies_now(
    entitlements: Entitlements,
) -> None:
    await publish(entitlements, [NOTES | {"quota": {"limit": 100}}], "new-agencies")
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    service = entitlements.service
    body = {"feature": "notes", "mode": "quota", "subject": ada, "reason": "pilot"}
    grant = (await entitlements.post("grants", body)).json()["grant_id"]
    await publish(entitlements, [NOTES | {"quota": {"limit": 25}}])
    await eventually(lambda: rolled_out(entitlements, 3))
    service.clock.move(START + timedelta(days=1))
    use = {"subject": ada, "feature": "notes", "amount": 20}
    assert (await entitlements.post("usage/consume", use)).status_code == 200
    assert (await entitlements.post(f"grants/{grant}/revocation", {"reason": "over"})).status_code == 200
    service.clock.move(service.clock.now() + SECOND)
    async with following(entitlements) as client:
        late = used(1, ada, START + timedelta(hours=12), amount=10, feature="notes")
        assert (await report(entitlements, late)).json()["counted"] == 1
        await used_up(entitlements, client, ada, "notes")


async def test_use_of_a_period_that_is_now_counted_differently_is_told_by_the_deadline_of_an_upgrade(
    entitlements: Entitlements,
) -> None:
    await publish(entitlements, [NOTES | {"quota": {"limit": 10, "period": "anchor"}}], "new-agencies")
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    service = entitlements.service
    use = {"subject": ada, "feature": "notes", "amount": 10}
    assert (await entitlements.post("usage/consume", use)).status_code == 200
    # The earlier release counted the month from another instant.
    earlier = "starts_at = starts_at - interval '4 hours', ends_at = ends_at - interval '4 hours'"
    await service.admin.execute(f"update usage_sum set {earlier}; update quota_use set {earlier}")
    async with following(entitlements) as client:
        await eventually(lambda: client.check(ada, "notes").reason == "quota_used_up")
        assert (await entitlements.check("ada", "notes"))["remaining"] == 10
        now = service.clock.now() + SECOND
        await service.admin.execute(
            "insert into deadline (kind, agency_id, subject, due_at) values ('quota-uses-told', 'NASA', 'enr_1', $1)",
            now,
        )
        service.clock.move(now)

        async def told() -> bool:
            answer = client.check(ada, "notes")
            return (answer.reason, answer.used) == ("quota", 0)

        await eventually(told)

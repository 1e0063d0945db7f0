"""What quota grants pay for, whoever's use it is."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from muster_contracts.entitlements import QuotaExceeded, QuotaGranted, QuotaThresholdCrossed
from muster_entitlements.domain.quotas import Sum
from muster_entitlements.handlers.quota_grants import MOST_UNSPENT
from muster_entitlements.repository.quota_grants import find_grants_for
from muster_runtime.database import outbox
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_catalog import FRONTIER, publish
from tests.integration.entitlements.test_snapshots import following
from tests.integration.entitlements.test_trials import withdraw
from tests.integration.entitlements.test_usage import report, used
from tests.support.eventually import eventually


def notes(**quota: Any) -> dict[str, Any]:
    return FRONTIER | {"key": "notes", "name": "Notes", "mode": "quota", "quota": quota}


async def test_a_shared_grant_is_spent_in_the_order_of_time(entitlements: Entitlements) -> None:
    await publish(entitlements, [notes(limit=1)], "new-agencies")
    await entitlements.enroll(cap=6)
    people = [(await entitlements.assign(number)).json()["subject_ref"] for number in range(6)]
    grant = await entitlements.post("quota-grants", {"feature": "notes", "amount": 3, "reason": "pilot"})
    assert grant.status_code == 201
    entitlements.service.clock.move(START + timedelta(days=1))
    events = [
        used(number, person, START + timedelta(hours=10 - number), amount=2, feature="notes")
        for number, person in enumerate(people)
    ]
    assert (await report(entitlements, *events)).json()["counted"] == 6
    rows = await entitlements.service.admin.fetch("select subject_ref, excess from usage_sum where subject_ref <> ''")
    excess = {row["subject_ref"]: row["excess"] for row in rows}
    assert [excess[person] for person in people] == [1, 1, 1, 0, 0, 0]
    assert await entitlements.service.admin.fetchval("select spent from quota_grant") == 3

    async def told() -> bool:
        crossed = await entitlements.service.published(QuotaThresholdCrossed)
        exceeded = await entitlements.service.published(QuotaExceeded)
        return [{(each.data.used, each.data.charged) for each in found} for found in (crossed, exceeded)] == [
            {(2, 1), (2, 2)},
            {(2, 2)},
        ]

    await eventually(told)


async def test_a_quota_grant_is_published_without_its_reason(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=2)
    wanted = {"feature": "deep-research", "amount": 3, "priority": -1, "ends_at": "2025-12-01T00:00:00Z"}
    to_all = (await entitlements.post("quota-grants", wanted | {"reason": "pilot"})).json()
    to_ada = {"feature": "deep-research", "amount": 9, "subject": "ada@nasa.gov", "reason": "pilot"}
    to_one = (await entitlements.post("quota-grants", to_ada)).json()
    assert [grant.pop("spent") for grant in (to_all, to_one)] == [0, 0]

    async def told() -> bool:
        found = [event.data.model_dump(mode="json") for event in await entitlements.service.published(QuotaGranted)]
        return found == [{"agency_id": "NASA"} | grant for grant in (to_all, to_one)]

    await eventually(told)


async def test_what_an_agency_has_can_be_granted_even_once_the_newest_version_lacks_it(
    entitlements: Entitlements,
) -> None:
    await publish(entitlements, [FRONTIER, notes(limit=5)], "new-agencies")
    await entitlements.enroll(cap=2)
    await publish(entitlements, [FRONTIER], "new-agencies")
    quota = await entitlements.post("quota-grants", {"feature": "notes", "amount": 3, "reason": "pilot"})
    assert quota.status_code == 201, quota.text
    feature = await entitlements.post("grants", {"feature": "notes", "mode": "quota", "reason": "pilot"})
    assert (feature.status_code, feature.json()["monthly_quota"]) == (201, 5)

    later = replace(entitlements, agency="NSF")  # which does not have it
    await later.enroll(cap=2)
    for path, body in (("quota-grants", {"amount": 3}), ("grants", {})):
        reply = await later.post(path, {"feature": "notes", "reason": "pilot", **body})
        assert (reply.status_code, reply.json()["type"].rsplit(":", 1)[-1]) == (404, "feature-unknown")


async def test_a_grant_of_the_agencys_quota_is_of_the_whole_agency(entitlements: Entitlements) -> None:
    await publish(entitlements, [notes(limit=5, per="agency")], "new-agencies")
    await entitlements.enroll(cap=2)
    await publish(entitlements, [notes(limit=5)], "new-agencies")  # the agency does not have this one
    grant = {"feature": "notes", "amount": 3, "reason": "pilot"}
    reply = await entitlements.post("quota-grants", grant | {"subject": "person.ada@nasa.gov"})
    assert (reply.status_code, reply.json()["errors"][0]["field"]) == (422, "subject")
    assert "must be left out: the quota of notes is of the whole agency" in reply.text
    assert (await entitlements.post("quota-grants", grant)).status_code == 201


async def test_a_granted_quota_takes_grants_to_its_person_whatever_else_the_agency_has(
    entitlements: Entitlements,
) -> None:
    await publish(entitlements, [notes(limit=5, per="agency")], "new-agencies")
    await entitlements.enroll(cap=2)
    await publish(entitlements, [notes(limit=1)], "new-agencies")
    ada, bob = [(await entitlements.assign(person)).json()["subject_ref"] for person in ("ada", "bob")]
    quota = {"feature": "notes", "mode": "quota", "reason": "pilot", "subject": ada}
    assert (await entitlements.post("grants", quota)).status_code == 201
    further = {"feature": "notes", "amount": 3, "reason": "pilot"}
    granted = await entitlements.post("quota-grants", further | {"subject": ada})
    assert granted.status_code == 201, granted.text
    assert (await entitlements.post("quota-grants", further | {"subject": bob})).status_code == 422
    later_on = {"subject": bob, "starts_at": (START + timedelta(days=10)).isoformat()}
    assert (await entitlements.post("grants", quota | later_on)).status_code == 201
    for days, status in ((10, 422), (11, 201)):
        span = {"subject": bob, "ends_at": (START + timedelta(days=days)).isoformat()}
        assert (await entitlements.post("quota-grants", further | span)).status_code == status
    for amount, status in ((4, 200), (1, 409)):
        reply = await entitlements.post("usage/consume", {"subject": ada, "feature": "notes", "amount": amount})
        assert reply.status_code == status, reply.text
    assert (await entitlements.check("ada", "notes"))["reason"] == "quota_used_up"
    assert (await entitlements.post("quota-grants", further | {"subject": ada})).status_code == 201
    async with following(entitlements) as client:

        async def agrees() -> bool:
            return client.check(ada, "notes").reason == "quota"

        await eventually(agrees)

    later = replace(entitlements, agency="NSF")  # which has no window of it, and soon no catalog has it either
    await publish(entitlements, [FRONTIER], "new-agencies")
    await later.enroll(cap=2)
    await publish(entitlements, [FRONTIER, notes(limit=1)], "new-agencies")
    assert (await later.post("grants", quota)).status_code == 201
    await publish(entitlements, [FRONTIER], "new-agencies")
    granted = await later.post("quota-grants", further | {"subject": ada})
    assert granted.status_code == 201, granted.text
    assert (await later.post("quota-grants", further)).status_code == 404


async def test_grants_leave_room_for_what_other_commands_add_to_the_record(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(entitlements, [FRONTIER, notes(limit=10)], "new-agencies")
    await entitlements.enroll(cap=6)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    monkeypatch.setattr(outbox, "EVENT_BYTES", 3_000)
    for to in ({"subject": ada}, {"subject": "person.bob@nasa.gov"}, {}):  # Bob has no seat, and no record yet
        grant = {"feature": "notes", "amount": 1, "reason": "a deadline"} | to
        replies = [(await entitlements.post("quota-grants", grant)) for _ in range(MOST_UNSPENT)]
        statuses = [reply.status_code for reply in replies]
        assert statuses == sorted(statuses)
        assert set(statuses) == {201, 409}
        assert replies[-1].json()["type"].endswith(":grants-full")
        reply = await entitlements.post("grants", {"feature": "frontier-models", "reason": "pilot"} | to)
        assert (reply.status_code, reply.json()["type"].rsplit(":", 1)[-1]) == (409, "grants-full")
    assert (await entitlements.assign("bob")).status_code == 201
    entitlements.service.clock.move(START + timedelta(hours=1))
    reported = await report(entitlements, used(1, ada, amount=10, at=START + timedelta(hours=1), feature="notes"))
    assert (reported.status_code, reported.json()["counted"]) == (200, 1)
    use = {"subject": ada, "feature": "notes", "amount": 1}
    assert (await entitlements.post("usage/consume", use)).status_code == 200
    await withdraw(entitlements, "enr_1", START + timedelta(days=1))


async def test_what_a_grant_makes_allowed_has_a_higher_revision(entitlements: Entitlements) -> None:
    """Otherwise whoever keeps the answer until it ends, or the revision increases, would continue refusing."""
    await publish(entitlements, [notes(limit=1)], "new-agencies")
    await entitlements.enroll(cap=6)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    for to in ({"subject": ada}, {}):
        used_up = await entitlements.post("usage/consume", {"subject": ada, "feature": "notes"})
        assert used_up.status_code == 200, used_up.text
        before = await entitlements.check("ada", "notes")
        assert before["reason"] == "quota_used_up"
        granted = await entitlements.post(
            "quota-grants", {"feature": "notes", "amount": 1, "reason": "a deadline"} | to
        )
        assert granted.status_code == 201
        after = await entitlements.check("ada", "notes")
        assert (after["reason"], after["revision"]) == ("quota", before["revision"] + 1)


async def test_a_grant_that_ended_unspent_is_read_only_for_use_before_its_end(entitlements: Entitlements) -> None:
    await publish(entitlements, [notes(limit=1)], "new-agencies")
    await entitlements.enroll(cap=1)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    end = START + timedelta(days=2)
    body = {"feature": "notes", "amount": 3, "reason": "a deadline", "subject": ada, "ends_at": end.isoformat()}
    assert (await entitlements.post("quota-grants", body)).status_code == 201
    for starts_at, grants in ((START, 1), (end - timedelta(seconds=1), 1), (end, 0)):
        total = Sum("NASA", "notes", ada, starts_at, starts_at + timedelta(days=31))
        assert len(await find_grants_for(entitlements.service.admin, [total])) == grants
    entitlements.service.clock.move(START + timedelta(days=28))  # late use, of a period that is over
    await report(entitlements, used(1, ada, START + timedelta(days=1), 3, feature="notes"))
    assert await entitlements.service.admin.fetchval("select spent from quota_grant") == 2


async def test_unspent_grants_are_limited_to_what_the_record_of_their_holder_holds(
    entitlements: Entitlements,
) -> None:
    await publish(entitlements, [notes(limit=1)], "new-agencies")
    await entitlements.enroll(cap=6)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    body = {"feature": "notes", "amount": 1, "reason": "a deadline"}
    soon = (START + timedelta(days=2)).isoformat()
    for _ in range(MOST_UNSPENT):
        assert (await entitlements.post("quota-grants", {**body, "subject": ada, "ends_at": soon})).status_code == 201
    refused = await entitlements.post("quota-grants", {**body, "subject": ada})
    assert refused.status_code == 409
    assert refused.json()["type"].endswith("quota-grants-full")
    assert (await entitlements.post("quota-grants", body)).status_code == 201
    use = {"subject": ada, "feature": "notes", "amount": 2}
    assert (await entitlements.post("usage/consume", use)).status_code == 200
    for days in (1, 2):  # one is spent, and then all are over
        entitlements.service.clock.move(START + timedelta(days=days))
        assert (await entitlements.post("quota-grants", {**body, "subject": ada})).status_code == 201


async def test_what_remains_is_the_same_in_a_check_a_use_and_a_refusal(entitlements: Entitlements) -> None:
    await publish(entitlements, [notes(limit=10)], "new-agencies")
    await entitlements.enroll(cap=1)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]

    async def consume(amount: int) -> httpx.Response:
        return await entitlements.post("usage/consume", {"subject": ada, "feature": "notes", "amount": amount})

    assert "what is left of the quota of 10 until" in (await consume(11)).json()["detail"]
    for amount, subject in ((5, ada), (3, None)):
        further = {"feature": "notes", "amount": amount, "reason": "pilot", "subject": subject}
        assert (await entitlements.post("quota-grants", further)).status_code == 201
    later = {"feature": "notes", "amount": 9, "reason": "pilot", "starts_at": (START + timedelta(days=9)).isoformat()}
    assert (await entitlements.post("quota-grants", later)).status_code == 201
    for amount, remaining in ((4, 14), (10, 4)):
        reply = (await consume(amount)).json()
        assert reply["remaining"] == (await entitlements.check("ada", "notes"))["remaining"] == remaining
    refused = (await consume(5)).json()
    assert (refused["remaining"], refused["used"]) == (4, 14)
    assert "at most 4, what is left of the quota of 10 and the quota grants until" in refused["detail"]

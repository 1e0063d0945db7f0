"""A quota below what is used in the current period: it is shown, and refused unless the request allows it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx

from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_catalog import (
    FRONTIER,
    approve,
    ask,
    ask_to_publish,
    draft,
    propose,
    publish,
    rolled_out,
)
from tests.integration.entitlements.test_trials import pass_time
from tests.integration.entitlements.test_usage import report, used
from tests.support.eventually import eventually

DAY = timedelta(days=1)


def notes(**quota: Any) -> dict[str, Any]:
    return FRONTIER | {"key": "notes", "name": "Notes", "mode": "quota", "quota": quota}


def of_agency(**quota: Any) -> dict[str, Any]:
    return FRONTIER | {"key": "sketches", "name": "Sketches", "mode": "quota", "quota": quota | {"per": "agency"}}


async def use(entitlements: Entitlements, person: str, feature: str, amount: int) -> int:
    body = {"subject": f"person.{person}@nasa.gov", "feature": feature, "amount": amount}
    return (await entitlements.post("usage/consume", body)).status_code


async def begin(entitlements: Entitlements) -> str:
    """Put Ada and Bob within their quota of 20 notes, and their agency's of 20 sketches; returns Ada's reference."""
    await publish(entitlements, [FRONTIER, notes(limit=20), of_agency(limit=20)], "new-agencies")
    await entitlements.enroll(cap=5)
    ada, _ = [(await entitlements.assign(person)).json()["subject_ref"] for person in ("ada", "bob")]
    for person, feature, amount in (("ada", "notes", 18), ("bob", "notes", 12), ("ada", "sketches", 9)):
        assert await use(entitlements, person, feature, amount) == 200
    return str(ada)


async def asked(entitlements: Entitlements, *features: dict[str, Any], rule: str = "now") -> httpx.Response:
    """The answer to a request to publish them."""
    return await ask_to_publish(entitlements, (await draft(entitlements, list(features), rule))["revision"])


async def planned(entitlements: Entitlements, *features: dict[str, Any], rule: str = "now") -> dict[str, Any]:
    """Who would be above: the agencies, their people, and the most that is used."""
    reply = await ask(entitlements, "POST", "/plan", json={"rule": rule, "features": list(features)})
    return {
        each["feature"]: (each["above"], each["above_people"], each["most_used"])
        for each in reply.json()["features"]
        if each["above"]
    }


def refusals(reply: httpx.Response) -> list[tuple[str, str, str]]:
    assert reply.status_code == 422, reply.text
    return [(error["field"], error["value"], error["rule"]) for error in reply.json()["errors"]]


async def test_a_quota_that_is_lower_at_once_than_what_is_used_is_refused_with_field_value_and_rule(
    entitlements: Entitlements,
) -> None:
    await begin(entitlements)
    low = [FRONTIER, notes(limit=10), of_agency(limit=20)]
    assert await planned(entitlements, *low) == {"notes": (["NASA"], 2, 18)}
    [(field, value, rule)] = refusals(await asked(entitlements, *low))
    assert (field, value) == ("features.1.quota.limit", "10")
    assert rule.startswith("must be at least 18: 2 people of NASA used up to that many in the current period")
    shared = [FRONTIER, of_agency(limit=8), notes(limit=18)]
    assert await planned(entitlements, *shared) == {"sketches": (["NASA"], 0, 9)}
    [(field, value, rule)] = refusals(await asked(entitlements, *shared))
    assert (field, value) == ("features.1.quota.limit", "8")
    assert rule.startswith("must be at least 9: NASA used")
    assert await entitlements.service.admin.fetchval("select count(*) from proposal where state = 'pending'") == 0

    # It changes nothing yet, though its quota will count the month in which the next term begins; or nobody used more.
    for rule in ("next-term", "new-agencies"):
        assert await planned(entitlements, *low, rule=rule) == {}
        assert (await asked(entitlements, *low, rule=rule)).status_code == 202
    for features in (
        [FRONTIER, notes(limit=10, hard=False), of_agency(limit=20)],
        [FRONTIER, notes(limit=10, report_only=True), of_agency(limit=20)],
        [FRONTIER, notes(limit=18), of_agency(limit=9)],
        [FRONTIER],
    ):
        assert await planned(entitlements, *features) == {}
        assert (await asked(entitlements, *features)).status_code == 202


async def test_an_operator_lowers_a_quota_in_an_emergency_once_that_is_stated(entitlements: Entitlements) -> None:
    await begin(entitlements)
    low = [FRONTIER, notes(limit=10), of_agency(limit=20)]
    revision = (await draft(entitlements, low))["revision"]
    proposal = await propose(entitlements, revision, allow_below_use=True)
    seen = (await entitlements.service.client.get(proposal)).json()
    assert seen["body"] == {"allow_below_use": True}
    number = (await approve(entitlements, proposal)).json()["number"]
    await eventually(lambda: rolled_out(entitlements, number))
    assert [await use(entitlements, person, "notes", 1) for person in ("ada", "bob")] == [409, 409]
    recorded = "select after ->> 'allow_below_use' from audit where command = 'PublishCatalog' order by id desc limit 1"
    assert await entitlements.service.admin.fetchval(recorded) == "true"

    # Use that is already above is no reason to refuse a version that lowers nothing, or that raises the quota.
    for limit in (10, 11):
        assert (await asked(entitlements, notes(limit=limit), of_agency(limit=20))).status_code == 202
    [(field, *_)] = refusals(await asked(entitlements, notes(limit=9), of_agency(limit=20)))
    assert field == "features.0.quota.limit"


async def test_use_after_the_proposal_is_seen_by_its_approval(entitlements: Entitlements) -> None:
    await begin(entitlements)
    proposal = await propose(entitlements, (await draft(entitlements, [notes(limit=18)]))["revision"])
    assert await use(entitlements, "ada", "notes", 1) == 200
    [(_, value, rule)] = refusals(await approve(entitlements, proposal))
    assert (value, rule.split(":")[0]) == ("18", "must be at least 19")
    assert (await ask(entitlements, "GET", "")).json()["number"] == 2
    assert (await entitlements.service.client.get(proposal)).json()["state"] == "pending"


async def test_what_grants_paid_for_or_allow_is_not_above(entitlements: Entitlements) -> None:
    ada = await begin(entitlements)
    extra = {"feature": "notes", "subject": ada, "amount": 5, "reason": "pilot"}
    assert (await entitlements.post("quota-grants", extra)).status_code == 201
    assert await use(entitlements, "ada", "notes", 7) == 200  # two of the quota, and five of the grant
    assert await planned(entitlements, notes(limit=12)) == {"notes": (["NASA"], 1, 20)}
    unlimited = {"feature": "notes", "subject": ada, "reason": "pilot"}
    assert (await entitlements.post("grants", unlimited)).status_code == 201
    assert await planned(entitlements, notes(limit=12)) == {}
    assert await planned(entitlements, notes(limit=11)) == {"notes": (["NASA"], 1, 12)}
    assert (await entitlements.post("grants", {"feature": "notes", "reason": "pilot"})).status_code == 201
    assert await planned(entitlements, notes(limit=11)) == {}  # the agency's grant decides before its window


async def test_people_with_further_uses_left_are_not_above(entitlements: Entitlements) -> None:
    ada = await begin(entitlements)

    async def grant(**body: Any) -> None:
        reply = await entitlements.post("quota-grants", {"amount": 50, "reason": "pilot"} | body)
        assert reply.status_code == 201, reply.text

    await grant(feature="notes", subject=ada, starts_at=(START + DAY).isoformat())
    assert await planned(entitlements, notes(limit=10)) == {"notes": (["NASA"], 2, 18)}
    await grant(feature="notes", subject=ada)
    assert await planned(entitlements, notes(limit=10)) == {"notes": (["NASA"], 1, 12)}
    await grant(feature="notes")  # all people share it
    assert await planned(entitlements, notes(limit=10)) == {"notes": (["NASA"], 1, 12)}
    assert await planned(entitlements, of_agency(limit=8)) == {"sketches": (["NASA"], 0, 9)}
    await grant(feature="sketches")
    assert await planned(entitlements, of_agency(limit=8)) == {}

    await publish(entitlements, [FRONTIER, notes(limit=12), of_agency(limit=20)], "new-agencies")
    of_person = {"feature": "notes", "mode": "quota", "reason": "pilot", "subject": ada}
    assert (await entitlements.post("grants", of_person)).status_code == 201


async def test_people_whose_trial_continues_under_the_version_are_not_above(entitlements: Entitlements) -> None:
    def trial(days: int, limit: int) -> dict[str, Any]:
        terms = {"mode": "unlimited", "mode_after": "quota", "anchor": "seat", "trial_days": days}
        return notes(limit=limit) | terms

    await publish(entitlements, [FRONTIER, trial(30, 20)], "new-agencies")
    await entitlements.enroll(cap=5)
    for person, day in (("bob", 0), ("ada", 10)):
        await pass_time(entitlements, START + day * DAY)
        assert (await entitlements.assign(person)).status_code == 201
        assert await use(entitlements, person, "notes", 1) == 200
    await pass_time(entitlements, START + 41 * DAY)
    for person, amount in (("ada", 18), ("bob", 12)):
        assert await use(entitlements, person, "notes", amount) == 200
    assert await planned(entitlements, FRONTIER, trial(30, 10)) == {"notes": (["NASA"], 2, 18)}
    assert await planned(entitlements, FRONTIER, trial(38, 10)) == {"notes": (["NASA"], 1, 12)}
    assert await planned(entitlements, FRONTIER, trial(60, 10)) == {}


async def test_only_the_agencies_that_are_above_are_named(entitlements: Entitlements) -> None:
    await begin(entitlements)
    other = replace(entitlements, agency="NSF")
    await other.enroll(cap=2)
    reported = used(1, "sub_" + "c" * 32, START, 11, feature="notes", agency_id="NSF")
    await report(entitlements, reported)
    assert await planned(entitlements, notes(limit=11)) == {"notes": (["NASA"], 2, 18)}
    assert await planned(entitlements, notes(limit=10)) == {"notes": (["NASA", "NSF"], 3, 18)}
    [(_, _, rule)] = refusals(await asked(entitlements, notes(limit=10)))
    assert "2 people of NASA and 1 person of NSF" in rule


async def test_the_grant_of_a_quota_below_what_is_used_is_refused_unless_that_is_stated(
    entitlements: Entitlements,
) -> None:
    await begin(entitlements)
    await publish(entitlements, [FRONTIER, notes(limit=12), of_agency(limit=20)], "new-agencies")
    grant = {"feature": "notes", "mode": "quota", "reason": "pilot"}
    adas, bobs = ({"subject": f"person.{person}@nasa.gov"} for person in ("ada", "bob"))
    for body, who in ((grant, "1 person of NASA"), (grant | adas, "the person")):
        [(field, value, rule)] = refusals(await entitlements.post("grants", body))
        assert (field, value) == ("mode", "quota")
        assert rule.startswith(f"must be unlimited: the quota is 12, and {who} used 18 in the current period")
    assert (await entitlements.get("grants")).json()["items"] == []
    assert (await entitlements.post("grants", grant | bobs)).status_code == 201
    next_month = adas | {"starts_at": "2025-09-01T00:00:00Z", "ends_at": "2025-10-01T00:00:00Z"}
    assert (await entitlements.post("grants", grant | next_month)).status_code == 201
    now = adas | {"ends_at": "2025-09-01T00:00:00Z", "allow_below_use": True}
    assert (await entitlements.post("grants", grant | now)).status_code == 201
    recorded = "select after ->> 'allow_below_use' from audit where command = 'GrantFeature' order by id desc limit 2"
    assert [row[0] for row in await entitlements.service.admin.fetch(recorded)] == ["true", "false"]
    assert (await entitlements.check("ada", "notes"))["reason"] == "quota_used_up"
    assert (await entitlements.post("grants", grant)).status_code == 201  # everybody above has one of their own


async def test_who_has_a_grant_of_their_own_counts_as_of_the_start_of_the_agencys(entitlements: Entitlements) -> None:
    await begin(entitlements)
    await publish(entitlements, [FRONTIER, notes(limit=12), of_agency(limit=20)], "new-agencies")

    async def granted(first: int, last: int, **more: str) -> httpx.Response:
        """A grant from a day after the start to another."""
        span = {"starts_at": (START + first * DAY).isoformat(), "ends_at": (START + last * DAY).isoformat()}
        return await entitlements.post("grants", {"feature": "notes", "reason": "pilot"} | span | more)

    assert (await granted(2, 5, subject="person.ada@nasa.gov")).status_code == 201
    [(field, _, rule)] = refusals(await granted(5, 9, mode="quota"))
    assert (field, "1 person of NASA used 18" in rule) == ("mode", True)
    assert (await granted(3, 5, mode="quota")).status_code == 201

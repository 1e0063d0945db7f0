"""Checks: what is left of a quota, and many in one request, each answered as it would be alone."""

from dataclasses import replace
from typing import Any

import pytest

from muster_contracts.entitlements import QuotaScope
from muster_entitlements.api.checks import MOST_PAIRS
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_catalog import FRONTIER, publish
from tests.integration.entitlements.test_consumption import consume
from tests.integration.entitlements.test_quota_copies import NOTES
from tests.integration.entitlements.test_usage import LATER, limited, report, used


async def test_many_checks_are_answered_in_order_each_as_it_would_be_alone(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=5)
    seats = [(await entitlements.assign(person)).json() for person in range(4)]
    await entitlements.post(f"seats/{seats[1]['seat_id']}/activation")
    await entitlements.post(f"seats/{seats[2]['seat_id']}/suspension")
    await entitlements.post(f"seats/{seats[3]['seat_id']}/revocation")
    subjects = [seats[1]["subject_ref"], "person.0@nasa.gov", " Person.0@NASA.gov", *(s["subject_ref"] for s in seats)]
    asked: list[dict[str, Any]] = [
        {"subject": subject, **feature}
        for subject in [*subjects, "nobody@nasa.gov"]
        for feature in ({}, {"feature": "deep-research"}, {"feature": "frontier-models"})
    ]

    reply = await entitlements.post("checks", {"pairs": asked})
    assert reply.status_code == 200, reply.text
    alone = [(await entitlements.get("checks", **pair)).json() for pair in asked]
    assert reply.json()["answers"] == alone
    assert {answer["reason"] for answer in alone} == {
        "seat_assigned",
        "seat_active",
        "window_open",
        "seat_suspended",
        "no_seat",
    }


async def test_an_agency_without_a_pool_is_unknown(entitlements: Entitlements) -> None:
    reply = await entitlements.post("checks", {"pairs": [{"subject": "ada@nasa.gov"}]})
    [answer] = reply.json()["answers"]
    assert (answer["verdict"], answer["reason"]) == ("refused", "unknown")


async def test_what_is_not_a_list_of_checks_is_refused_as_a_whole(entitlements: Entitlements) -> None:
    good = {"subject": "ada@nasa.gov", "feature": "deep-research"}
    refused = {
        "pairs.1.subject": [good, {"subject": "ada@example.com"}],
        "pairs.2.feature": [good, good, {"subject": "ada@nasa.gov", "feature": "telepathy"}],
        "pairs.0.user": [{**good, "user": "ada"}],
        "pairs": [],
    }
    for field, pairs in refused.items():
        reply = await entitlements.post("checks", {"pairs": pairs})
        assert (reply.status_code, reply.json()["errors"][0]["field"]) == (422, field), reply.text
    assert (await entitlements.post("checks", {"pairs": [good] * MOST_PAIRS})).status_code == 200
    assert (await entitlements.post("checks", {"pairs": [good] * (MOST_PAIRS + 1)})).status_code == 422


async def test_pairs_are_refused_for_the_first_one_that_breaks_a_rule(entitlements: Entitlements) -> None:
    """Each further error would take memory and time, and nobody reads ten thousand of them."""
    wrong = {"a": 1, "b": 2, "c": 3, "d": 4}
    many_keys = {"subject": "ada@nasa.gov", **{f"k{number}": number for number in range(9_000)}}
    for path in ("/v1/agencies/NASA/checks", "/v1/checks"):
        for pairs, most in (([wrong] * 9_999, 6), ([many_keys], 4)):
            reply = await entitlements.service.client.post(path, json={"pairs": pairs})
            errors = reply.json()["errors"]
            assert (reply.status_code, {each["field"].split(".")[1] for each in errors}) == (422, {"0"})
            assert len(errors) <= most
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else "there is no such field"
            assert reply.json()["detail"].endswith(more)  # the reply has them all
    good = {"subject": "ada@nasa.gov", "feature": "deep-research"}
    refused = await entitlements.post("checks", {"pairs": [good, {"k": 1, "l": 2, "m": 3} | good]})
    assert [each["field"] for each in refused.json()["errors"]] == ["pairs.1.k"]


async def test_a_feature_of_a_later_version_is_unknown_at_an_earlier_instant(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    entitlements.service.clock.move(LATER)
    await publish(entitlements, [FRONTIER, NOTES], "new-agencies")
    asked, at = {"subject": "ada@nasa.gov", "feature": "notes"}, START.isoformat().replace("+00:00", "Z")
    assert (await entitlements.get("checks", **asked)).status_code == 200
    alone = await entitlements.get("checks", **asked, at=at)
    assert alone.status_code == 404
    assert alone.json()["detail"] == f"feature: the catalog had no feature 'notes' at {at}"
    path = "/v1/agencies/NASA/checks"
    bulk = await entitlements.service.client.post(path, params={"at": at}, json={"pairs": [asked]})
    assert bulk.status_code == 422
    assert bulk.json()["errors"][0]["rule"] == f"must be a feature that the catalog had at {at}"


async def test_the_lists_of_an_agency_that_never_enrolled_are_empty(entitlements: Entitlements) -> None:
    entitlements.service.clock.move(LATER)
    at = {"at": START.isoformat()}
    for path in ("windows", "seats", "seat-counts", "grants", "quota-grants"):
        for instants in ({}, at) if path in ("windows", "seats", "seat-counts") else ({},):
            reply = await entitlements.get(path, **instants)
            assert (reply.status_code, reply.json().get("items", [])) == (200, []), reply.text
    for path, instants in (("pool", {}), ("pool", at), ("adoption", {}), ("adoption/days", {})):
        reply = await entitlements.get(path, **instants)
        assert (reply.status_code, reply.json()["type"]) == (404, "urn:muster:problem:pool-unknown")


async def test_checks_need_the_scope_and_the_agency(entitlements: Entitlements) -> None:
    path, body = "/v1/agencies/NASA/checks", {"pairs": [{"subject": "ada@nasa.gov"}]}
    for scope, agency, status in (
        ("entitlements:read", "NASA", 200),
        ("entitlements:read", "NSF", 404),
        ("entitlements:write", "NASA", 403),
    ):
        headers = {"Authorization": f"Bearer {entitlements.service.token(scope, agency=agency)}"}
        reply = await entitlements.service.client.post(path, json=body, headers=headers)
        assert reply.status_code == status, reply.text


async def checked(entitlements: Entitlements, *people: int) -> list[tuple[Any, ...]]:
    """What people have left, and why they may continue or not: alone, in bulk, and with other agencies."""
    pairs = [{"subject": f"person.{person}@nasa.gov", "feature": "deep-research"} for person in people]
    alone = [await entitlements.check(person) for person in people]
    assert (await entitlements.post("checks", {"pairs": pairs})).json()["answers"] == alone
    everywhere = [{"agency_id": entitlements.agency, **pair} for pair in pairs]
    reply = await entitlements.service.client.post("/v1/checks", json={"pairs": everywhere})
    assert reply.json()["answers"] == alone
    return [(answer["reason"], answer["limit"], answer["used"], answer["remaining"]) for answer in alone]


async def test_a_check_says_what_is_left_of_a_quota(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    await entitlements.enroll(cap=3)
    seats = [(await entitlements.assign(person)).json() for person in range(3)]
    await consume(entitlements, 0, 9)  # within the trial, which is a separate period
    assert await checked(entitlements, 0) == [("window_open", None, None, None)]
    entitlements.service.clock.move(LATER)
    limited(monkeypatch, limit=10)
    await consume(entitlements, 0, 4)
    await consume(entitlements, 1, 10)
    await report(entitlements, used(1, seats[2]["subject_ref"], amount=14))
    used_up = [("quota_used_up", 10, 10, 0), ("quota_used_up", 10, 14, 0)]
    assert await checked(entitlements, 0, 1, 2) == [("quota", 10, 4, 6), *used_up]
    refused = await entitlements.check(1)
    assert (refused["verdict"], refused["valid_until"]) == ("refused", "2025-11-01T00:00:00Z")
    assert (await consume(entitlements, 1))[0] == 409

    grant = {"feature": "deep-research", "amount": 5, "reason": "pilot"}
    assert (await entitlements.post("quota-grants", grant)).status_code == 201
    assert await checked(entitlements, 0, 1, 2) == [("quota", 10, 4, 11), ("quota", 10, 10, 5), ("quota", 10, 14, 5)]
    limited(monkeypatch, limit=8, report_only=True)
    assert await checked(entitlements, 1) == [("quota", 8, 10, 5)]
    limited(monkeypatch, limit=40, per=QuotaScope.AGENCY)
    assert await checked(entitlements, 0, 1) == [("quota", 40, 28, 17)] * 2
    assert (await entitlements.check(0))["resets_at"] == "2025-11-01T00:00:00Z"


async def test_people_of_many_agencies_are_checked_in_one_request(entitlements: Entitlements) -> None:
    other = replace(entitlements, agency="NSF")
    for agency in (entitlements, other):
        await agency.enroll(cap=2)
        await agency.assign(1)
    person, feature = "person.1@nasa.gov", "frontier-models"
    pairs: list[dict[str, Any]] = [
        {"agency_id": "NSF", "subject": person, "feature": feature},
        {"agency_id": "DOE", "subject": person, "feature": feature},
        {"agency_id": "NASA", "subject": person},
        {"agency_id": "NSF", "subject": "person.2@nasa.gov", "feature": feature},
    ]
    client = entitlements.service.client
    reply = await client.post("/v1/checks", json={"pairs": pairs})
    assert reply.status_code == 200, reply.text
    reasons = [answer["reason"] for answer in reply.json()["answers"]]
    assert reasons == ["window_open", "unknown", "seat_assigned", "no_seat"]

    refused = {
        "pairs.1.agency_id": {"agency_id": "not an agency", "subject": person},
        "pairs.1.subject": {"agency_id": "NSF", "subject": "ada@example.com"},
        "pairs.1.feature": {"agency_id": "NSF", "subject": person, "feature": "telepathy\0"},
    }
    for field, pair in refused.items():
        reply = await client.post("/v1/checks", json={"pairs": [pairs[0], pair]})
        assert (reply.status_code, reply.json()["errors"][0]["field"]) == (422, field), reply.text
    headers = {"Authorization": f"Bearer {entitlements.service.token('entitlements:read', agency=['NASA', 'NSF'])}"}
    assert (await client.post("/v1/checks", json={"pairs": pairs}, headers=headers)).status_code == 403
    assert (await client.post("/v1/checks", json={"pairs": pairs[:1] * (MOST_PAIRS + 1)})).status_code == 422


async def test_a_grant_makes_a_feature_known_only_to_its_recipient(entitlements: Entitlements) -> None:
    """No version of the catalog has the feature any longer."""
    await entitlements.enroll(cap=5)
    ada, bob = [(await entitlements.assign(person)).json()["subject_ref"] for person in range(2)]
    await entitlements.service.admin.execute(
        """
        insert into entitlement_grant (agency_id, grant_id, feature, subject_ref, mode, starts_at, reason, granted_at)
        values ($1, 'grt_1', 'old-feature', $2, 'unlimited', '2025-08-06', 'pilot', '2025-08-06')
        """,
        entitlements.agency,
        bob,
    )
    for subject, alone, among_many in ((ada, 404, 422), (bob, 200, 200)):
        pair = {"subject": subject, "feature": "old-feature"}
        assert (await entitlements.get("checks", **pair)).status_code == alone
        reply = await entitlements.post("checks", {"pairs": [{"subject": bob, "feature": "old-feature"}, pair]})
        assert reply.status_code == among_many, reply.text

"""Many checks in one request: each is answered as it would be alone, or none is."""

from typing import Any

from muster_entitlements.api.checks import MOST_PAIRS
from tests.integration.entitlements.conftest import Entitlements


async def test_many_checks_are_answered_in_their_order_as_each_is_alone(entitlements: Entitlements) -> None:
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

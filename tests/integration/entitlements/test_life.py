"""The life of a seat: reserved for a person, invited, suspended, transferred, and revoked for good."""

import pytest

from muster_contracts.entitlements import (
    PersonErased,
    PersonRecorded,
    SeatActivated,
    SeatAssigned,
    SeatInvitationExpired,
    SeatInvited,
    SeatReinstated,
    SeatReserved,
    SeatSuspended,
    SeatTransferred,
)
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.lives import DAY, keep, published


async def test_a_seat_is_reserved_then_invited_then_taken(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    seat = await keep(entitlements, "ada", "reserved")
    assert (await entitlements.check("ada"))["reason"] == "seat_reserved"
    assert (await entitlements.assign("bob")).status_code == 409  # it counts
    refused = await entitlements.post(f"{seat}/activation")
    assert (refused.status_code, refused.json()["reason"]) == (409, "reserved")

    assert (await entitlements.post(f"{seat}/invitation")).json()["state"] == "invited"
    assert (await entitlements.check("ada"))["reason"] == "seat_invited"
    assert (await entitlements.post(f"{seat}/activation")).json()["state"] == "active"
    assert (await entitlements.check("ada"))["verdict"] == "allowed"
    assert (await entitlements.get(seat)).json()["invited_until"] is None

    for cls in (SeatReserved, SeatInvited, SeatAssigned, SeatActivated):
        await published(entitlements, cls, 1)


async def test_a_seat_that_begins_with_an_invitation_keeps_its_expiration(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    await entitlements.service.client.put(
        "/v1/agencies/NASA/seat-policy", json={"idle_days": None, "invitation_days": 10}
    )
    person = {"email": "person.ada@nasa.gov", "state": "invited"}
    assigned = (await entitlements.post("seats", person)).json()
    seat = f"seats/{assigned['seat_id']}"
    assert assigned == (await entitlements.get(seat)).json()
    assert assigned["invited_until"] is not None
    entitlements.service.clock.move(START + 10 * DAY)
    [expired] = await published(entitlements, SeatInvitationExpired, 1)
    assert expired.envelope.time == START + 10 * DAY
    assert (await entitlements.get(seat)).json()["state"] == "reserved"


async def test_the_reason_of_a_suspension_is_a_keyword(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    seat = await keep(entitlements, "ada", "assigned")
    for reason in ("Training expired", "", "training_expired\n", "7"):
        refused = await entitlements.post(f"{seat}/suspension", {"reason": reason})
        [error] = refused.json()["errors"]
        assert (refused.status_code, error["field"]) == (422, "reason")
        assert error["rule"].startswith("must be a keyword such as training_expired")
    assert (await entitlements.post(f"{seat}/suspension", {"reason": "training_expired"})).status_code == 200
    assert (await entitlements.get(seat)).json()["reason"] == "training_expired"


async def test_an_invitation_expires_at_its_instant_and_can_be_sent_again(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=3)
    await entitlements.service.client.put(
        "/v1/agencies/NASA/seat-policy", json={"idle_days": None, "invitation_days": 10}
    )
    seat = await keep(entitlements, "ada", "invited")
    taken = await keep(entitlements, "bob", "invited")
    await entitlements.post(f"{taken}/activation")
    entitlements.service.clock.move(START + 3 * DAY)
    await entitlements.post(f"{seat}/invitation")
    entitlements.service.clock.move(START + 10 * DAY)
    assert (await entitlements.get(seat)).json()["state"] == "invited"
    before = (await entitlements.pool())["revision"]
    entitlements.service.clock.move(START + 14 * DAY)
    [expired] = await published(entitlements, SeatInvitationExpired, 1)
    assert expired.envelope.time == START + 13 * DAY
    assert (await entitlements.get(seat)).json()["state"] == "reserved"
    assert (await entitlements.pool())["revision"] > before

    assert (await entitlements.post(f"{seat}/invitation")).status_code == 200
    assert (await entitlements.post(f"{seat}/activation")).status_code == 200
    await published(entitlements, SeatInvited, 4)


async def test_a_seat_is_suspended_and_reinstated_as_it_was(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=2)
    seat = await keep(entitlements, "ada", "assigned")
    for state in ("assigned", "active"):
        if state == "active":
            await entitlements.post(f"{seat}/activation")
        for _ in range(2):
            suspended = await entitlements.post(f"{seat}/suspension", {"reason": "training_expired"})
            assert suspended.json()["state"] == "suspended"
        assert (await entitlements.check("ada"))["reason"] == "seat_suspended"
        assert (await entitlements.post(f"{seat}/activation")).status_code == 409
        assert (await entitlements.post(f"{seat}/transfer", {"email": "x@nasa.gov"})).status_code == 409
        for _ in range(2):
            assert (await entitlements.post(f"{seat}/reinstatement")).json()["state"] == state
    assert (await entitlements.pool())["in_use"] == 1
    events = await published(entitlements, SeatSuspended, 2)
    assert {event.data.reason for event in events} == {"training_expired"}
    await published(entitlements, SeatReinstated, 2)
    reserved = await keep(entitlements, "eve", "reserved")
    assert (await entitlements.post(f"{reserved}/suspension")).status_code == 409
    assert (await entitlements.post(f"{reserved}/suspension", {"reason": "Ada is ill"})).status_code == 422


async def test_a_seat_goes_from_one_person_to_another(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=2)
    seat = await keep(entitlements, "ada", "assigned")
    await entitlements.post(f"{seat}/activation")
    await keep(entitlements, "eve", "assigned")
    ada = (await entitlements.get(seat)).json()["subject_ref"]
    held = await entitlements.post(f"{seat}/transfer", {"email": "person.eve@nasa.gov"})
    assert held.json()["type"].endswith("seat-already-held")

    moved = await entitlements.post(f"{seat}/transfer", {"email": "person.bob@nasa.gov", "name": "Bob"})
    assert moved.json()["state"] == "assigned"
    now = (await entitlements.get(seat)).json()
    assert (now["email"], now["name"], now["activated_at"]) == ("person.bob@nasa.gov", "Bob", None)
    assert [(await entitlements.check(who))["verdict"] for who in ("ada", "bob")] == ["refused", "allowed"]
    assert (await entitlements.pool())["in_use"] == 2
    [event] = await published(entitlements, SeatTransferred, 1)
    assert event.data.from_subject_ref == ada
    assert event.data.subject_ref == now["subject_ref"]
    [erased] = await published(entitlements, PersonErased, 1)
    assert erased.data.subject_ref == ada
    await published(entitlements, PersonRecorded, 3)
    assert (await entitlements.assign("ada")).status_code == 409  # the seat stayed in use


@pytest.mark.parametrize("action", ["invitation", "suspension", "reinstatement", "activation"])
async def test_a_revoked_seat_does_not_come_back(entitlements: Entitlements, action: str) -> None:
    await entitlements.enroll(cap=1)
    seat = await keep(entitlements, "ada", "assigned")
    await entitlements.post(f"{seat}/revocation")
    reply = await entitlements.post(f"{seat}/{action}")
    assert (reply.status_code, reply.json()["type"]) == (409, "urn:muster:problem:seat-revoked")

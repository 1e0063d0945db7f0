"""The whole life of a seat: kept for a person, invited, suspended, given to another, idle; and the pool resized."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from muster_contracts.enrollment import AgencyReinstated, AgencySuspended
from muster_contracts.entitlements import (
    PersonErased,
    PersonRecorded,
    SeatActivated,
    SeatAssigned,
    SeatIdleWarned,
    SeatInvitationExpired,
    SeatInvited,
    SeatLimitReached,
    SeatPoolResized,
    SeatReinstated,
    SeatReserved,
    SeatRevoked,
    SeatSuspended,
    SeatTransferred,
)
from muster_contracts.event import Event
from tests.integration.entitlements.conftest import START, Entitlements

DAY = timedelta(days=1)


async def keep(entitlements: Entitlements, person: str, state: str) -> str:
    reply = await entitlements.post("seats", {"email": f"person.{person}@nasa.gov", "state": state})
    assert (reply.status_code, reply.json()["state"]) == (201, state)
    return f"seats/{reply.json()['seat_id']}"


async def published(entitlements: Entitlements, cls: type[Event], count: int) -> list[Any]:
    async def all_there() -> list[Any] | None:
        events = await entitlements.service.published(cls)
        return events if len(events) == count else None

    events: list[Any] = await entitlements.eventually(all_there)
    return events


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


async def test_a_seat_that_begins_with_an_invitation_keeps_until_when(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    await entitlements.service.client.put(
        "/v1/agencies/NASA/seat-policy", json={"idle_days": None, "invitation_days": 10}
    )
    seat = await keep(entitlements, "ada", "invited")
    assert (await entitlements.get(seat)).json()["invited_until"] is not None
    entitlements.service.clock.move(START + 10 * DAY)
    [expired] = await published(entitlements, SeatInvitationExpired, 1)
    assert expired.envelope.time == START + 10 * DAY
    assert (await entitlements.get(seat)).json()["state"] == "reserved"


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


async def test_an_idle_seat_is_warned_then_reclaimed_unless_it_is_used(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=5)
    policy = {"idle_days": 30, "warning_days": 7}
    await entitlements.service.client.put("/v1/agencies/NASA/seat-policy", json=policy)
    idle, used, late = [await keep(entitlements, who, "assigned") for who in ("idle", "used", "late")]
    suspended = await keep(entitlements, "suspended", "assigned")
    await entitlements.post(f"{suspended}/suspension")

    async def use(who: str) -> None:
        body = {"subject": f"person.{who}@nasa.gov", "feature": "deep-research"}
        assert (await entitlements.post("usage", body)).status_code == 200

    await use("late")
    entitlements.service.clock.move(START + 10 * DAY)
    await use("used")
    entitlements.service.clock.move(START + 30 * DAY)
    warned = await published(entitlements, SeatIdleWarned, 2)
    assert {event.envelope.time for event in warned} == {START + 30 * DAY}
    assert {event.data.reclaim_at for event in warned} == {START + 37 * DAY}
    entitlements.service.clock.move(START + 33 * DAY)
    await use("late")
    entitlements.service.clock.move(START + 37 * DAY)
    [revoked] = await published(entitlements, SeatRevoked, 1)
    assert (revoked.data.reason, revoked.envelope.time) == ("inactivity", START + 37 * DAY)
    states = [(await entitlements.get(seat)).json()["state"] for seat in (idle, used, late, suspended)]
    assert states == ["revoked", "active", "active", "suspended"]
    assert (await entitlements.pool())["in_use"] == 3
    await published(entitlements, SeatActivated, 2)
    audit = await entitlements.service.admin.fetch("select command, actor from audit where id > 5 order by id")
    assert ("ReclaimIdleSeats", "entitlements") in {tuple(row) for row in audit}
    assert [row["command"] for row in audit].count("MarkUse") == 2

    await entitlements.service.client.put("/v1/agencies/NASA/seat-policy", json={"idle_days": None})

    async def forgotten() -> bool:
        return bool(
            await entitlements.service.admin.fetchval(
                """
                select
                    not exists (select from deadline where kind = 'idle-seats')
                    and not exists (select from seat where state <> 'revoked' and idle_reclaim_at is not null)
                """
            )
        )

    await entitlements.eventually(forgotten)


@pytest.mark.parametrize(("late", "reclaimed_after"), [(timedelta(), 67), (timedelta(hours=10), 68)])
async def test_after_an_outage_an_idle_seat_is_kept_for_as_long_as_its_warning_says(
    entitlements: Entitlements, late: timedelta, reclaimed_after: int
) -> None:
    await entitlements.enroll(cap=1)
    policy = {"idle_days": 30, "warning_days": 7}
    await entitlements.service.client.put("/v1/agencies/NASA/seat-policy", json=policy)
    await keep(entitlements, "idle", "assigned")
    entitlements.service.clock.move(START + 60 * DAY + late)  # nobody has looked for 60 days
    await entitlements.eventually(lambda: _next_look(entitlements, START + 61 * DAY))
    reclaim_at = START + reclaimed_after * DAY
    [warned] = await published(entitlements, SeatIdleWarned, 1)
    assert (warned.data.reclaim_at, warned.envelope.time) == (reclaim_at, START + 30 * DAY)
    assert await _revoked(entitlements) == 0
    entitlements.service.clock.move(reclaim_at - timedelta(microseconds=1))
    await entitlements.eventually(lambda: _next_look(entitlements, reclaim_at))
    assert await _revoked(entitlements) == 0
    entitlements.service.clock.move(reclaim_at)
    [revoked] = await published(entitlements, SeatRevoked, 1)
    assert revoked.envelope.time == reclaim_at


async def test_a_warning_does_not_outlive_a_time_in_which_seats_cannot_be_used(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    policy = {"idle_days": 30, "warning_days": 7}
    await entitlements.service.client.put("/v1/agencies/NASA/seat-policy", json=policy)
    await keep(entitlements, "ada", "assigned")
    entitlements.service.clock.move(START + 30 * DAY)
    await published(entitlements, SeatIdleWarned, 1)
    suspension = AgencySuspended(agency_id="NASA", enrollment_id="enr_1", reason="atu_lapsed", suspended_at=START)
    await entitlements.service.publish(suspension)
    await entitlements.eventually(lambda: _pool_is(entitlements, "suspended"))
    entitlements.service.clock.move(START + 40 * DAY)
    await entitlements.eventually(lambda: _next_look(entitlements, START + 41 * DAY))
    await entitlements.service.publish(AgencyReinstated(agency_id="NASA", enrollment_id="enr_1", reinstated_at=START))
    await entitlements.eventually(lambda: _pool_is(entitlements, "open"))
    entitlements.service.clock.move(START + 41 * DAY)
    [_, again] = await published(entitlements, SeatIdleWarned, 2)
    assert again.data.reclaim_at == START + 48 * DAY
    assert await _revoked(entitlements) == 0


async def test_nothing_is_held_against_people_who_may_not_use_their_seats(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    policy = {"idle_days": 5, "warning_days": 1}
    await entitlements.service.client.put("/v1/agencies/NASA/seat-policy", json=policy)
    seat = await keep(entitlements, "ada", "assigned")
    suspension = AgencySuspended(agency_id="NASA", enrollment_id="enr_1", reason="atu_lapsed", suspended_at=START)
    await entitlements.service.publish(suspension)
    await entitlements.eventually(lambda: _pool_is(entitlements, "suspended"))
    entitlements.service.clock.move(START + 20 * DAY)
    await entitlements.eventually(lambda: _next_look(entitlements, START + 21 * DAY))
    assert (await entitlements.get(seat)).json()["state"] == "assigned"
    await entitlements.service.publish(AgencyReinstated(agency_id="NASA", enrollment_id="enr_1", reinstated_at=START))
    await entitlements.eventually(lambda: _pool_is(entitlements, "open"))
    entitlements.service.clock.move(START + 21 * DAY)
    await published(entitlements, SeatIdleWarned, 1)


async def test_use_is_written_once_a_day_and_refused_with_its_reason(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    body = {"subject": "person.ada@nasa.gov", "feature": "deep-research"}
    refused = await entitlements.post("usage", body)
    assert (refused.status_code, refused.json()["reason"]) == (409, "no_seat")
    seat = await keep(entitlements, "ada", "assigned")
    assert (await entitlements.post("usage", body)).json()["used_on"] == "2025-08-06"
    assert (await entitlements.get(seat)).json()["state"] == "active"
    version = "select xmin::text from seat"
    before = await entitlements.service.admin.fetchval(version)
    assert (await entitlements.post("usage", body)).status_code == 200
    assert await entitlements.service.admin.fetchval(version) == before
    entitlements.service.clock.move(START + DAY)
    assert (await entitlements.post("usage", body)).json()["used_on"] == "2025-08-07"
    assert await entitlements.service.admin.fetchval(version) != before
    assert (await entitlements.post("usage", {**body, "feature": "none"})).status_code == 404


async def test_a_pool_is_resized_but_never_below_what_is_in_use(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    await entitlements.assign("ada")
    assert (await entitlements.assign("bob")).status_code == 409
    grown = await entitlements.post("pool/resize", {"cap": 2})
    assert (grown.json()["cap"], grown.json()["in_use"]) == (2, 1)
    assert (await entitlements.assign("bob")).status_code == 201
    assert (await entitlements.assign("eve")).status_code == 409
    below = await entitlements.post("pool/resize", {"cap": 1})
    assert (below.status_code, below.json()["in_use"]) == (409, 2)
    assert (await entitlements.post("pool/resize", {"cap": 2})).status_code == 200
    assert (await entitlements.post("pool/resize", {"cap": -1})).status_code == 422
    [resized] = await published(entitlements, SeatPoolResized, 1)
    assert (resized.data.previous_cap, resized.data.cap, resized.data.in_use) == (1, 2, 1)
    await published(entitlements, SeatLimitReached, 2)
    token = entitlements.service.token("entitlements:write", agency="NASA")
    own = await entitlements.service.client.post(
        "/v1/agencies/NASA/pool/resize", json={"cap": 9}, headers={"Authorization": f"Bearer {token}"}
    )
    assert own.status_code == 403


async def test_a_policy_is_edited_by_who_has_read_it(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    client, path = entitlements.service.client, "/v1/agencies/NASA/seat-policy"
    read = await client.get(path)
    assert (read.json()["idle_days"], read.headers["etag"]) == (None, '"0"')
    body = {"idle_days": 60, "warning_days": 10, "invitation_days": 5}
    assert (await client.put(path, json=body, headers={"If-Match": '"0"'})).json() == {**body, "version": 1}
    assert (await client.put(path, json=body, headers={"If-Match": '"0"'})).status_code == 412
    assert (await client.get(path)).headers["etag"] == '"1"'


@pytest.mark.parametrize("action", ["invitation", "suspension", "reinstatement", "activation"])
async def test_a_revoked_seat_does_not_come_back(entitlements: Entitlements, action: str) -> None:
    await entitlements.enroll(cap=1)
    seat = await keep(entitlements, "ada", "assigned")
    await entitlements.post(f"{seat}/revocation")
    reply = await entitlements.post(f"{seat}/{action}")
    assert (reply.status_code, reply.json()["type"]) == (409, "urn:muster:problem:seat-revoked")


async def _next_look(entitlements: Entitlements, at: datetime) -> bool:
    due = await entitlements.service.admin.fetchval("select min(due_at) from deadline where kind = 'idle-seats'")
    return bool(due == at)


async def _revoked(entitlements: Entitlements) -> int:
    return int(await entitlements.service.admin.fetchval("select count(*) from seat where state = 'revoked'"))


async def _pool_is(entitlements: Entitlements, state: str) -> bool:
    return bool((await entitlements.pool())["state"] == state)

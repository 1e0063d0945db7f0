"""Seats over HTTP: given, used, taken back, and never more than the cap."""

import asyncio
from collections import Counter

import pytest

from muster_contracts.entitlements import (
    PersonErased,
    PersonRecorded,
    SeatActivated,
    SeatAssigned,
    SeatLimitReached,
    SeatRevoked,
)
from tests.integration.entitlements.conftest import Entitlements
from tests.support.eventually import eventually


async def test_the_life_of_a_seat(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=2)
    assigned = await entitlements.assign("ada")
    assert assigned.status_code == 201
    seat = assigned.json()
    assert seat["state"] == "assigned"
    assert assigned.headers["location"] == f"/v1/agencies/NASA/seats/{seat['seat_id']}"

    path = f"seats/{seat['seat_id']}"
    assert (await entitlements.get(path)).json()["email"] == "person.ada@nasa.gov"
    assert (await entitlements.post(f"{path}/activation")).json()["state"] == "active"
    assert (await entitlements.post(f"{path}/activation")).status_code == 200
    assert (await entitlements.pool())["in_use"] == 1
    assert (await entitlements.post(f"{path}/revocation", {"reason": "ada@nasa.gov moved"})).status_code == 422
    assert (await entitlements.post(f"{path}/revocation", {"reason": "moved"})).json()["state"] == "revoked"
    assert (await entitlements.post(f"{path}/revocation")).status_code == 200
    assert (await entitlements.post(f"{path}/activation")).status_code == 409
    assert (await entitlements.pool())["in_use"] == 0
    revoked = (await entitlements.get(path)).json()
    assert (revoked["state"], revoked["email"], revoked["name"]) == ("revoked", None, None)

    for cls in (SeatAssigned, PersonRecorded, SeatActivated, SeatRevoked, PersonErased):
        events = await eventually(lambda cls=cls: entitlements.service.published(cls))
        assert [event.data.subject_ref for event in events] == [seat["subject_ref"]]
    audit = await entitlements.service.admin.fetch("select command, reason from audit order by id")
    assert Counter(row["command"] for row in audit) == {"AssignSeat": 1, "ActivateSeat": 2, "RevokeSeat": 2}
    assert "moved" in {row["reason"] for row in audit}


async def test_a_person_holds_one_seat_and_may_have_another_later(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=5)
    first = (await entitlements.assign("ada")).json()
    again = await entitlements.post("seats", {"email": " PERSON.Ada@NASA.gov "})
    assert (again.status_code, again.json()["seat_id"]) == (409, first["seat_id"])
    await entitlements.post(f"seats/{first['seat_id']}/revocation")
    second = (await entitlements.assign("ada")).json()
    assert second["subject_ref"] == first["subject_ref"]
    assert second["seat_id"] != first["seat_id"]


async def test_seats_are_listed_in_pages(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=5)
    for person in range(5):
        await entitlements.assign(person)
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = (await entitlements.get("seats", limit="2", **after)).json()
        seen += [seat["email"] for seat in page["items"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert sorted(seen) == [f"person.{person}@nasa.gov" for person in range(5)]


async def test_two_hundred_race_for_the_last_fifty_seats(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=65)
    await entitlements.import_file("\n".join(["email", *(f"person.{n}@nasa.gov" for n in range(15))]))

    replies = await asyncio.gather(*(entitlements.assign(f"late.{person}") for person in range(200)))

    assert Counter(reply.status_code for reply in replies) == {201: 50, 409: 150}
    refused = {reply.json()["type"] for reply in replies if reply.status_code == 409}
    assert refused == {"urn:muster:problem:seat-cap-reached"}
    pool = await entitlements.pool()
    assert (pool["in_use"], pool["cap"]) == (65, 65)
    await eventually(lambda: _published(entitlements, SeatAssigned, 65))
    [limit] = await eventually(lambda: entitlements.service.published(SeatLimitReached))
    assert (limit.data.cap, limit.data.in_use, limit.data.refused) == (65, 65, 1)


async def test_the_limit_is_told_once_until_a_seat_becomes_free(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    seat = (await entitlements.assign("ada")).json()
    for _ in range(3):
        assert (await entitlements.assign("bob")).status_code == 409
    await entitlements.post(f"seats/{seat['seat_id']}/revocation")
    assert (await entitlements.assign("bob")).status_code == 201
    for _ in range(3):
        assert (await entitlements.assign("eve")).status_code == 409
    await entitlements.assign("last")
    assert (await entitlements.import_file("email\nperson.last@nasa.gov\n"))["refused"] == 1

    await eventually(lambda: _outbox_is_empty(entitlements))
    assert len(await entitlements.service.published(SeatLimitReached)) == 2


async def test_a_command_repeated_with_its_key_is_carried_out_once(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    replies = await asyncio.gather(*(entitlements.assign("ada", key="one") for _ in range(10)))
    assert {reply.status_code for reply in replies} == {201}
    assert len({reply.json()["seat_id"] for reply in replies}) == 1
    assert (await entitlements.pool())["in_use"] == 1


async def test_a_stored_reply_names_nobody(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=2)
    first = await entitlements.assign("kim", key="once")
    assert (first.json()["email"], first.json()["name"]) == ("person.kim@nasa.gov", "Person kim")
    again = await entitlements.assign("kim", key="once")
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
    assert again.json() == first.json() | {"email": None, "name": None}
    assert again.headers["location"] == first.headers["location"]
    await entitlements.post(f"seats/{first.json()['seat_id']}/revocation")
    tables = await entitlements.service.admin.fetch(
        "select table_name from information_schema.tables where table_schema = 'entitlements'"
    )
    for (table,) in tables:
        rows = await entitlements.service.admin.fetch(f"select to_jsonb(t) - 'payloads' from {table} as t")
        assert not [row for row in rows if "kim" in row[0]], table
    bodies = await entitlements.service.admin.fetch("select convert_from(body, 'utf8') from idempotency")
    assert bodies
    assert not [row for row in bodies if "kim" in row[0]]


async def test_a_refusal_is_not_kept_under_the_key(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    seat = (await entitlements.assign("ada")).json()
    assert (await entitlements.assign("bob", key="bob")).status_code == 409
    await entitlements.post(f"seats/{seat['seat_id']}/revocation")
    assert (await entitlements.assign("bob", key="bob")).status_code == 201


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"email": "ada@example.com"}, "email"),
        ({"email": "not an address"}, "email"),
        ({"email": "ada@nasa.gov", "name": "\u0000"}, "name"),
        ({"email": "ada@nasa.gov", "nickname": "A"}, "nickname"),
        ({"email": 1}, "email"),
        ({}, "email"),
    ],
)
async def test_a_bad_request_names_the_field(entitlements: Entitlements, body: object, named: str) -> None:
    await entitlements.enroll(cap=1)
    reply = await entitlements.post("seats", body)
    assert reply.status_code == 422
    assert named in reply.text
    assert (await entitlements.pool())["in_use"] == 0


async def test_what_is_not_there_is_not_found(entitlements: Entitlements) -> None:
    unknown = await entitlements.assign("ada")
    assert (unknown.status_code, unknown.json()["reason"]) == (404, "unknown")
    assert (await entitlements.get("pool")).status_code == 404
    assert (await entitlements.send_file("email\nada@nasa.gov\n")).status_code == 404
    await entitlements.enroll(cap=1)
    missing = f"seats/seat_{'0' * 32}"
    assert (await entitlements.get(missing)).status_code == 404
    assert (await entitlements.post(f"{missing}/activation")).status_code == 404
    assert (await entitlements.post(f"{missing}/revocation")).status_code == 404
    assert (await entitlements.get("checks", subject="a@nasa.gov", feature="none")).status_code == 404


async def test_another_tenants_agency_is_not_found(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    seat = (await entitlements.assign("ada")).json()
    token = entitlements.service.token("entitlements:read", "entitlements:write", agency="GSA")
    client, headers = entitlements.service.client, {"Authorization": f"Bearer {token}"}
    for path in ("pool", "seats", f"seats/{seat['seat_id']}", "windows", "checks?subject=a@nasa.gov"):
        assert (await client.get(f"/v1/agencies/NASA/{path}", headers=headers)).status_code == 404
    body = {"email": "ada@nasa.gov"}
    assert (await client.post("/v1/agencies/NASA/seats", json=body, headers=headers)).status_code == 404
    own = await client.get("/v1/agencies/GSA/seats", headers=headers)
    assert own.json()["items"] == []


async def test_every_route_requires_a_scope(entitlements: Entitlements) -> None:
    token = entitlements.service.token("entitlements:read")
    reply = await entitlements.service.client.post(
        "/v1/agencies/NASA/seats", json={}, headers={"Authorization": f"Bearer {token}"}
    )
    assert reply.status_code == 403


async def _published(entitlements: Entitlements, cls: type[SeatAssigned], count: int) -> bool:
    return len(await entitlements.service.published(cls)) == count


async def _outbox_is_empty(entitlements: Entitlements) -> bool:
    return bool(await entitlements.service.admin.fetchval("select count(*) = 0 from outbox"))

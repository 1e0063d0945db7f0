"""The unit of a seat: given once, kept for good, published, and searched by."""

from collections import Counter
from datetime import timedelta
from typing import Any, cast

from muster_contracts.entitlements import SeatAssigned
from muster_entitlements.queries.seats import SeatSearch, list_seats
from muster_runtime.database.transactions import Connection
from muster_runtime.pagination import Pagination
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.files import file_of, sums
from tests.integration.entitlements.lives import DAY, published
from tests.support.explaining import Explaining, reading

RULE = "unit must be at most 80 characters without control characters and without @: it is published"


async def units(entitlements: Entitlements, **params: str) -> list[Any]:
    """The units of the seats that a search finds, oldest first, which are the same in pages of one."""
    found: list[Any] = []
    cursor: dict[str, str] | None = {}
    while cursor is not None:
        reply = await entitlements.get("seats", limit="1", **cursor, **params)
        assert reply.status_code == 200, reply.text
        found += [seat["unit"] for seat in reply.json()["items"]]
        cursor = {"after": reply.json()["next"]} if reply.json()["next"] else None
    whole = await entitlements.get("seats", **params)
    assert [seat["unit"] for seat in whole.json()["items"]] == found
    return found


async def test_a_seat_keeps_its_unit_for_good(entitlements: Entitlements) -> None:
    clock = entitlements.service.clock
    await entitlements.enroll(cap=9)
    request = {"email": "ada@nasa.gov", "unit": "  Office of  the CIO "}
    assigned = await entitlements.post("seats", request, key="ada")
    assert (assigned.status_code, assigned.json()["unit"]) == (201, "Office of the CIO")
    assert (await entitlements.post("seats", request, key="ada")).json()["unit"] == "Office of the CIO"
    invited = (await entitlements.post("seats", {"email": "bob@nasa.gov", "unit": "JPL", "state": "invited"})).json()
    assert (await entitlements.assign("none")).json()["unit"] is None
    refused = await entitlements.post("seats", {"email": "cid@nasa.gov", "unit": "x" * 81})
    assert refused.status_code == 422
    audited = await entitlements.service.admin.fetch("select after->>'unit' from audit where command = 'AssignSeat'")
    assert Counter(row[0] for row in audited) == Counter(["Office of the CIO", "JPL", None])
    [error] = refused.json()["errors"]
    assert (error["field"], f"unit {error['rule']}") == ("unit", RULE)

    seat = f"seats/{assigned.json()['seat_id']}"
    clock.move(START + DAY)
    assert (await entitlements.post(f"seats/{invited['seat_id']}/activation")).status_code == 200
    assert (await entitlements.post(f"{seat}/transfer", {"email": "dee@nasa.gov"})).status_code == 200
    clock.move(START + 2 * DAY)
    assert (await entitlements.post(f"{seat}/revocation")).status_code == 200
    clock.move(START + 3 * DAY)
    shown = (await entitlements.get(seat)).json()
    assert (shown["state"], shown["email"], shown["unit"]) == ("revoked", None, "Office of the CIO")
    before = {"at": (START + timedelta(hours=36)).isoformat()}
    assert (await entitlements.get(seat, **before)).json()["unit"] == "Office of the CIO"
    assert Counter(await units(entitlements, **before)) == Counter(["Office of the CIO", "JPL", None])
    for path, whose in ((f"{seat}/history", {}), ("seat-history", {"subject": "bob@nasa.gov"})):
        versions = (await entitlements.get(path, **whose)).json()["items"]
        assert len(versions) > 1
        assert {version["unit"] for version in versions} == {"JPL" if whose else "Office of the CIO"}

    events = await published(entitlements, SeatAssigned, 3)
    assert [event.data.unit for event in events] == ["Office of the CIO", None, "JPL"]


async def test_a_file_gives_units_and_a_bad_one_refuses_its_row(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=9)
    body = (
        "E-Mail,Unit,Name\n"
        "ada@nasa.gov, JPL ,Ada\n"
        f"bob@nasa.gov,{'x' * 81},Bob\n"
        "cid@nasa.gov,cid@nasa.gov,Cid\n"
        'dee@nasa.gov,"Büro ""A"" \\",Dee\n'
        "eve@nasa.gov,,Eve\n"
        "ada@nasa.gov,Ames,Ada again\n"
    )
    dry = await entitlements.import_file(body.encode(), dry_run=True)
    operation = await entitlements.import_file(body.encode())
    assert sums(dry) == sums(operation) == (6, 3, 1, 2)
    results = await entitlements.results(operation)
    assert [(int(row["line"]), row["outcome"], row["reason"]) for row in results] == [
        (2, "assigned", ""),
        (3, "refused", RULE),
        (4, "refused", RULE),
        (5, "assigned", ""),
        (6, "assigned", ""),
        (7, "already_held", ""),
    ]
    assert await units(entitlements) == ["JPL", 'Büro "A" \\', None]
    again = await entitlements.import_file(b"email,unit\nada@nasa.gov,Ames\n")
    assert sums(again) == (1, 0, 1, 0)
    entitlements.service.clock.move(START + DAY)
    await entitlements.import_file(file_of(1))
    assert await units(entitlements) == ["JPL", 'Büro "A" \\', None, None]
    events = await published(entitlements, SeatAssigned, 4)
    assert [event.data.unit for event in events] == ["JPL", 'Büro "A" \\', None, None]


async def test_seats_are_found_by_their_unit_in_any_case(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=9)
    body = "email,unit\n" + "".join(f"{n}@nasa.gov,{unit}\n" for n, unit in enumerate(("JPL", "jpl", "JPL 2", "")))
    await entitlements.import_file(body)
    assert await units(entitlements, unit=" Jpl ") == ["JPL", "jpl"]
    assert await units(entitlements, unit="jpl", address="1@nasa.gov") == ["jpl"]
    assert await units(entitlements, unit="jpl", state="active") == []
    assert await units(entitlements, unit="jpl", state="assigned", unused_since="2025-08-07") == ["JPL", "jpl"]
    assert await units(entitlements, unit="JP") == []
    for unit, at in ((" ", {}), ("\x1c", {}), ("a@b", {}), ("JPL", {"at": START.isoformat()})):
        reply = await entitlements.get("seats", unit=unit, **at)
        assert reply.status_code == 422, reply.text
        [error] = reply.json()["errors"]
        assert (error["field"], error["value"]) == ("unit", unit)


async def test_the_seats_of_a_small_unit_are_found_by_their_index(entitlements: Entitlements) -> None:
    seats, admin = 20_000, entitlements.service.admin
    await entitlements.enroll(cap=seats)
    await entitlements.assign_seats(seats)
    await admin.execute("update seat set unit = 'JPL', unit_key = 'jpl' where hashtext(seat_id) % 1000 = 0")
    await admin.execute("analyze seat")
    explaining = Explaining(admin)
    async with reading(admin, "NASA"):
        page = Pagination(after="seat_1", limit=100)
        await list_seats(cast("Connection", explaining), "NASA", SeatSearch(unit_key="jpl"), page)
    assert "seat_by_unit" in explaining.plan, explaining.plan
    assert "Sort" not in explaining.plan, explaining.plan

"""Who holds a seat, who held it before, and how many there are."""

from datetime import timedelta
from typing import Any

from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.files import file_of
from tests.integration.entitlements.lives import DAY, keep
from tests.support.eventually import eventually

DAYS = [f"2025-08-{day:02}T00:00:00Z" for day in range(1, 32)]  # of August: START is the sixth


async def found(entitlements: Entitlements, path: str, **params: str) -> list[dict[str, Any]]:
    """The items of a list, which is the same in pages of one."""
    reply = await entitlements.get(path, **params)
    assert reply.status_code == 200, reply.text
    items: list[dict[str, Any]] = reply.json()["items"]
    paged: list[dict[str, Any]] = []
    cursor: dict[str, str] | None = {}
    while cursor is not None:
        page = (await entitlements.get(path, limit="1", **cursor, **params)).json()
        paged += page["items"]
        assert len(paged) <= len(items)
        cursor = {"after": page["next"]} if page["next"] else None
    assert paged == items
    return items


async def test_seats_are_found_counted_and_followed_back(entitlements: Entitlements) -> None:
    clock = entitlements.service.clock
    await entitlements.enroll(cap=9)
    ada, bob, cid, dee = [(await entitlements.assign(name)).json() for name in ("ada", "bob", "cid", "dee")]
    eve = await keep(entitlements, "eve", "invited")

    async def do(day: int, seat: dict[str, Any], action: str, body: Any = None) -> None:
        clock.move(START + timedelta(days=day))
        reply = await entitlements.post(f"seats/{seat['seat_id']}/{action}", body)
        assert reply.status_code == 200, reply.text

    await do(1, ada, "activation")
    await do(2, bob, "suspension", {"reason": "training_expired"})
    await do(2, bob, "reinstatement")  # at the same instant: it was never suspended
    await do(3, bob, "suspension", {"reason": "security"})
    await do(4, cid, "revocation", {"reason": "left NASA"})
    await do(5, dee, "transfer", {"email": "person.fay@nasa.gov"})
    await do(6, dee, "activation")
    clock.move(START + timedelta(days=15))  # the invitation has expired
    await eventually(lambda: of_state(entitlements, "reserved"))

    async def refs(**params: str) -> set[str]:
        return {seat["subject_ref"] for seat in await found(entitlements, "seats", **params)}

    fay, eva = [(await entitlements.get(path)).json()["subject_ref"] for path in (f"seats/{dee['seat_id']}", eve)]
    assert await refs() == {ada["subject_ref"], bob["subject_ref"], cid["subject_ref"], fay, eva}
    assert await refs(address=" Person.Fay@NASA.gov ") == await refs(subject=fay) == {fay}
    assert await refs(address="josé@nasa.gov") == set()  # nobody gets such a seat anymore, but somebody may hold one
    assert await refs(subject="person.cid@nasa.gov") == {cid["subject_ref"]}
    assert await refs(subject=dee["subject_ref"]) == set()  # her seat is another person's
    assert await refs(state="active") == {ada["subject_ref"], fay}
    assert await refs(state="revoked") == {cid["subject_ref"]}
    assert await refs(state="active", unused_since="2025-08-12") == {ada["subject_ref"]}
    assert await refs(unused_since="2025-08-07") == {eva}
    [suspended] = await found(entitlements, "seats", state="suspended")
    assert (suspended["reason"], suspended["unused_since"]) == ("security", "2025-08-08")
    counts = {"reserved": 1, "invited": 0, "assigned": 0, "active": 2, "suspended": 1, "revoked": 1}
    assert (await entitlements.get("seat-counts")).json() == counts

    def version(seat: dict[str, Any], whose: str, state: str, since: int, until: int | None, why: Any = None) -> Any:
        end = None if until is None else DAYS[until + 5]
        same = {"seat_id": seat["seat_id"], "subject_ref": whose}
        same |= {"state": state, "reason": why, "unit": None}
        return {**same, "recorded_from": DAYS[since + 5], "recorded_until": end}

    bobs = [
        version(bob, bob["subject_ref"], "assigned", 0, 2),
        version(bob, bob["subject_ref"], "assigned", 2, 3),
        version(bob, bob["subject_ref"], "suspended", 3, None, "security"),
    ]
    assert await found(entitlements, f"seats/{bob['seat_id']}/history") == bobs
    dees = [
        version(dee, dee["subject_ref"], "assigned", 0, 5),
        version(dee, fay, "assigned", 5, 6),
        version(dee, fay, "active", 6, None),
    ]
    assert await found(entitlements, f"seats/{dee['seat_id']}/history") == dees
    assert await found(entitlements, "seat-history", subject=dee["subject_ref"]) == dees[:1]
    assert await found(entitlements, "seat-history", subject="person.fay@nasa.gov") == dees[1:]
    assert [each["state"] for each in await found(entitlements, f"{eve}/history")] == ["invited", "reserved"]
    again = (await entitlements.assign("cid")).json()
    assert await found(entitlements, "seat-history", subject=cid["subject_ref"]) == [
        version(cid, cid["subject_ref"], "assigned", 0, 4),
        version(cid, cid["subject_ref"], "revoked", 4, None, "requested"),
        version(again, cid["subject_ref"], "assigned", 15, None),
    ]
    await do(16, again, "revocation")

    refused = {
        ("seats", "address"): "ada@example.com",
        ("seats", "subject"): "ada",
        ("seats", "state"): "asleep",
        ("seats", "unused_since"): "5",
        ("seats", "unit"): " ",
        ("seats", "bureau"): "JPL",
        ("seat-history", "subject"): "ada",
    }
    for (path, name), value in refused.items():
        reply = await entitlements.get(path, **{name: value})
        assert reply.status_code == 422, reply.text
    cursor = (await entitlements.get("seats", limit="1")).json()["next"]
    assert (await entitlements.get("seat-history", subject=fay, after=cursor)).status_code == 422
    assert (await entitlements.get(f"seats/seat_{'0' * 32}/history")).status_code == 404
    headers = {"Authorization": f"Bearer {entitlements.service.token('entitlements:read', agency='NSF')}"}
    reply = await entitlements.service.client.get("/v1/agencies/NASA/seat-history?subject=" + fay, headers=headers)
    assert reply.status_code == 404


async def of_state(entitlements: Entitlements, state: str) -> bool:
    return bool((await entitlements.get("seat-counts")).json()[state])


async def test_an_import_writes_no_history_and_the_end_of_an_enrollment_does(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=9)
    await entitlements.import_file(file_of(7))
    assert await entitlements.service.admin.fetchval("select count(*) from seat_history") == 0
    entitlements.service.clock.move(START + DAY)
    await entitlements.service.publish(entitlements.withdrawn(at=START + DAY))

    async def kept() -> bool:
        return bool(await entitlements.service.admin.fetchval("select count(*) = 7 from seat_history"))

    await eventually(kept)
    versions = await found(entitlements, "seat-history", subject="person.3@nasa.gov")
    assert [(each["state"], each["reason"]) for each in versions] == [
        ("assigned", None),
        ("revoked", "agency_withdrawn"),
    ]
    assert (await entitlements.get("seat-counts")).json()["revoked"] == 7

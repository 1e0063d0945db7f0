"""The use of seats, the size of the pool, and the seat policy."""

from muster_contracts.entitlements import (
    SeatLimitReached,
    SeatPoolResized,
)
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.lives import DAY, keep, published


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

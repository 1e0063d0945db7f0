"""After a restore, enrollment or billing repeats or contradicts what it published: no seat is lost."""

from datetime import timedelta
from typing import Any

import pytest

from muster_contracts.billing import TermEnded
from muster_contracts.entitlements import PersonErased, SeatRevoked
from tests.integration.entitlements.conftest import NEXT_END, START, Entitlements
from tests.integration.entitlements.test_pools import applied, eventually_state, suspended
from tests.support.eventually import eventually


async def test_a_repeated_enrollment_only_ends_a_suspension(entitlements: Entitlements) -> None:
    """Enrollment may publish it again after a restore, even with other terms and together with other events."""
    service = entitlements.service
    await entitlements.enroll(cap=5)
    await entitlements.assign("ada")
    assert (await entitlements.post("pool/resize", {"cap": 7})).status_code == 200
    windows = (await entitlements.get("windows")).json()
    again = entitlements.enrolled(3).model_copy(update={"starts_at": START + timedelta(days=9), "ends_at": NEXT_END})
    await service.publish(suspended(entitlements), again, entitlements.enrolled(5))
    await eventually(lambda: applied(entitlements, 4))
    pool = await entitlements.pool()
    assert (pool["state"], pool["cap"], pool["in_use"], pool["ends_at"]) == ("open", 7, 1, "2026-08-06T00:00:00Z")
    assert (await entitlements.get("windows")).json() == windows
    assert (await entitlements.check("ada"))["verdict"] == "allowed"
    assert await service.admin.fetchval("select count(*) from closing") == 0
    assert await service.published(SeatRevoked) == []
    assert await service.published(PersonErased) == []


@pytest.mark.parametrize("end", ["withdrawn", "ended"])
@pytest.mark.parametrize("later", [None, "enr_2"])
async def test_a_repeated_enrollment_that_is_over_stays_over(
    entitlements: Entitlements, end: str, later: str | None
) -> None:
    await entitlements.enroll(cap=5)
    ends = [entitlements.withdrawn()] if end == "withdrawn" else [entitlements.term(), entitlements.term_ended()]
    await entitlements.service.publish(*ends)
    await eventually_state(entitlements, end)
    if later:
        await entitlements.enroll(cap=5, enrollment_id=later)
        await entitlements.assign("ada")
    before = await entitlements.pool()
    await entitlements.service.publish(entitlements.enrolled(5))
    await eventually(lambda: applied(entitlements, 2 + len(ends) + bool(later)))
    pool = await entitlements.pool()
    assert {**pool, "revision": 0} == {**before, "revision": 0}
    assert await entitlements.service.admin.fetchval("select count(*) from closing") == 0


async def test_an_end_without_a_renewal_that_was_accepted_parks_its_agency(entitlements: Entitlements) -> None:
    """Billing was restored to an instant before the renewal."""
    await entitlements.enroll(cap=3)
    await entitlements.assign("ada")
    await entitlements.service.publish(entitlements.term(), entitlements.renewal("accepted"))
    await entitlements.service.publish(entitlements.term_ended(renewed=True), entitlements.term_ended())

    async def parked() -> Any:
        return await entitlements.service.admin.fetchval("select reason from parked_stream")

    assert "was renewed until 2027-08-06" in await eventually(parked)
    assert (await entitlements.pool())["in_use"] == 1
    assert (await entitlements.check("ada"))["verdict"] == "allowed"

    # Nobody can renew or withdraw by now. A new enrollment revokes the seats, and then the event can be applied.
    replay = f"/v1/parked/{TermEnded.topic}/NASA/replay"
    assert (await entitlements.service.client.post(replay)).json()["parked"] is True
    await entitlements.enroll(cap=5, enrollment_id="enr_2")
    assert (await entitlements.service.client.post(replay)).json()["parked"] is False
    pool = await entitlements.pool()
    assert (pool["state"], pool["enrollment_id"], pool["in_use"]) == ("open", "enr_2", 0)

"""Idle seats: warned about, revoked unless they are used, and never counted against people who cannot use them."""

from datetime import datetime, timedelta

import pytest

from muster_contracts.enrollment import AgencyReinstated, AgencySuspended
from muster_contracts.entitlements import (
    PersonErased,
    SeatActivated,
    SeatIdleWarned,
    SeatRevoked,
    SubjectAccessErased,
)
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.lives import DAY, keep, published
from tests.support.eventually import eventually


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
    for erasure in (PersonErased, SubjectAccessErased):
        [erased] = await published(entitlements, erasure, 1)
        assert erased.data.subject_ref == revoked.data.subject_ref
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

    await eventually(forgotten)


@pytest.mark.parametrize(("late", "reclaimed_after"), [(timedelta(), 67), (timedelta(hours=10), 68)])
async def test_after_an_outage_an_idle_seat_is_kept_for_as_long_as_its_warning_says(
    entitlements: Entitlements, late: timedelta, reclaimed_after: int
) -> None:
    await entitlements.enroll(cap=1)
    policy = {"idle_days": 30, "warning_days": 7}
    await entitlements.service.client.put("/v1/agencies/NASA/seat-policy", json=policy)
    await keep(entitlements, "idle", "assigned")
    entitlements.service.clock.move(START + 60 * DAY + late)  # nobody has looked for 60 days
    await eventually(lambda: _next_look(entitlements, START + 61 * DAY))
    reclaim_at = START + reclaimed_after * DAY
    [warned] = await published(entitlements, SeatIdleWarned, 1)
    assert (warned.data.reclaim_at, warned.envelope.time) == (reclaim_at, START + 30 * DAY)
    assert await _revoked(entitlements) == 0
    entitlements.service.clock.move(reclaim_at - timedelta(microseconds=1))
    await eventually(lambda: _next_look(entitlements, reclaim_at))
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
    await eventually(lambda: _pool_is(entitlements, "suspended"))
    entitlements.service.clock.move(START + 40 * DAY)
    await eventually(lambda: _next_look(entitlements, START + 41 * DAY))
    await entitlements.service.publish(AgencyReinstated(agency_id="NASA", enrollment_id="enr_1", reinstated_at=START))
    await eventually(lambda: _pool_is(entitlements, "open"))
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
    await eventually(lambda: _pool_is(entitlements, "suspended"))
    entitlements.service.clock.move(START + 20 * DAY)
    await eventually(lambda: _next_look(entitlements, START + 21 * DAY))
    assert (await entitlements.get(seat)).json()["state"] == "assigned"
    await entitlements.service.publish(AgencyReinstated(agency_id="NASA", enrollment_id="enr_1", reinstated_at=START))
    await eventually(lambda: _pool_is(entitlements, "open"))
    entitlements.service.clock.move(START + 21 * DAY)
    await published(entitlements, SeatIdleWarned, 1)


async def _next_look(entitlements: Entitlements, at: datetime) -> bool:
    due = await entitlements.service.admin.fetchval("select min(due_at) from deadline where kind = 'idle-seats'")
    return bool(due == at)


async def _revoked(entitlements: Entitlements) -> int:
    return int(await entitlements.service.admin.fetchval("select count(*) from seat where state = 'revoked'"))


async def _pool_is(entitlements: Entitlements, state: str) -> bool:
    return bool((await entitlements.pool())["state"] == state)

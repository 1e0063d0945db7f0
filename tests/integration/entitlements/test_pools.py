"""What enrollment and billing publish: pools, windows, and their ends, in whichever order the two topics arrive."""

from datetime import datetime, timedelta
from itertools import combinations
from typing import Any

import pytest

from muster_contracts import Event
from muster_contracts.enrollment import AgencyReinstated, AgencySuspended
from muster_contracts.entitlements import (
    FeatureWindowExtended,
    FeatureWindowOpened,
    PersonErased,
    SeatRevoked,
    TrialExpired,
)
from tests.integration.entitlements.conftest import END, NEXT_END, START, Entitlements
from tests.support.eventually import eventually

TERM_WINDOW, TRIALS = "frontier-models", {"deep-research", "advanced-voice-mode"}


async def test_an_enrollment_opens_a_pool_and_a_window_for_each_feature(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=3)
    pool = await entitlements.pool()
    assert (pool["state"], pool["cap"], pool["in_use"]) == ("open", 3, 0)
    windows = {window["feature"]: window for window in (await entitlements.get("windows")).json()["items"]}
    assert windows.keys() == {TERM_WINDOW, *TRIALS}
    assert windows["deep-research"]["ends_at"] == "2025-10-05T00:00:00Z"
    opened = await eventually(lambda: entitlements.service.published(FeatureWindowOpened))
    assert {event.data.feature: event.data.ends_at for event in opened} == {
        TERM_WINDOW: END,
        **dict.fromkeys(TRIALS, START + timedelta(days=60)),
    }
    assert all(event.envelope.causation_id for event in opened)


async def test_a_suspended_agency_is_refused_and_a_reinstated_one_is_not(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=3)
    seat = (await entitlements.assign("ada")).json()
    assert (await entitlements.check("ada"))["verdict"] == "allowed"

    await entitlements.service.publish(suspended(entitlements))
    await eventually_state(entitlements, "suspended")
    assert (await entitlements.check("ada"))["reason"] == "suspended"
    refused = await entitlements.assign("bob")
    assert (refused.status_code, refused.json()["reason"]) == (409, "suspended")
    refused = await entitlements.post(f"seats/{seat['seat_id']}/activation")
    assert (refused.status_code, refused.json()["reason"]) == (409, "suspended")

    await entitlements.service.publish(AgencyReinstated(agency_id="NASA", enrollment_id="enr_1", reinstated_at=START))
    await eventually_state(entitlements, "open")
    assert (await entitlements.check("ada"))["verdict"] == "allowed"
    assert (await entitlements.assign("bob")).status_code == 201


async def test_a_withdrawal_takes_every_seat_back_and_says_no_more_about_trials(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=5)
    for person in range(3):
        await entitlements.assign(person)
    await entitlements.service.publish(entitlements.withdrawn(at=START + timedelta(days=10)))
    await eventually_state(entitlements, "withdrawn")

    assert (await entitlements.pool())["in_use"] == 0
    assert (await entitlements.check(0))["reason"] == "withdrawn"
    refused = await entitlements.assign("bob")
    assert (refused.status_code, refused.json()["reason"]) == (409, "withdrawn")

    async def revoked() -> bool:
        events = await entitlements.service.published(SeatRevoked)
        return [event.data.reason for event in events] == ["agency_withdrawn"] * 3

    async def erased() -> bool:
        return len(await entitlements.service.published(PersonErased)) == 3

    await eventually(revoked)
    await eventually(erased)
    assert await entitlements.service.admin.fetchval("select count(*) from seat where email is not null") == 0
    assert await entitlements.service.admin.fetchval("select count(*) from deadline") == 0
    ends = await entitlements.service.admin.fetch("select distinct ends_at from feature_window")
    assert [row["ends_at"] for row in ends] == [START + timedelta(days=10)]
    assert await entitlements.service.published(TrialExpired) == []


async def test_an_agency_that_left_before_it_was_active_leaves_nothing(entitlements: Entitlements) -> None:
    await entitlements.service.publish(entitlements.withdrawn("enr_0"))
    await entitlements.enroll(cap=1)
    assert (await entitlements.pool())["state"] == "open"


async def test_a_later_enrollment_takes_the_pool_over(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=5)
    for person in range(3):
        await entitlements.assign(person)
    first = await entitlements.pool()
    # Billing's event that ends the first term arrives after the second enrollment, and must not end that one.
    await entitlements.service.publish(entitlements.term("enr_1"))
    await entitlements.enroll(cap=2, enrollment_id="enr_2")
    await entitlements.service.publish(entitlements.term_ended(enrollment_id="enr_1"))
    await eventually(lambda: applied(entitlements, 2 + 2))

    pool = await entitlements.pool()
    assert (pool["state"], pool["cap"], pool["in_use"]) == ("open", 2, 0)
    assert pool["revision"] > first["revision"]
    assert (await entitlements.check(0))["reason"] == "no_seat"
    assert (await entitlements.assign(0)).status_code == 201
    revoked = await eventually(lambda: entitlements.service.published(SeatRevoked))
    assert [event.data.reason for event in revoked] == ["term_ended"] * 3


def interleavings(first: list[Event], second: list[Event]) -> list[list[Event]]:
    """Every order of two topics' events that keeps each topic's own."""
    merged = []
    length = len(first) + len(second)
    for places in combinations(range(length), len(first)):
        one, other = iter(first), iter(second)
        merged.append([next(one) if place in places else next(other) for place in range(length)])
    return merged


@pytest.mark.parametrize(
    ("withdrawn_after", "state", "ends_at"),
    [
        (None, "open", NEXT_END),
        (timedelta(days=100), "withdrawn", START + timedelta(days=100)),
        (timedelta(days=500), "withdrawn", START + timedelta(days=500)),
    ],
)
async def test_a_renewal_extends_whichever_topic_comes_first(
    entitlements: Entitlements, withdrawn_after: timedelta | None, state: str, ends_at: datetime
) -> None:
    def of_enrollment(agency: Entitlements) -> list[Event]:
        leaving = [agency.withdrawn(at=START + withdrawn_after)] if withdrawn_after is not None else []
        return [agency.enrolled(3), *leaving]

    def of_billing(agency: Entitlements) -> list[Event]:
        return [agency.term(), agency.renewal("accepted"), agency.term_ended(renewed=True)]

    for pool, windows in await outcomes(entitlements, of_enrollment, of_billing):
        assert (pool["ends_at"], pool["ended"]) == (ends_at, False)
        trial_ends_at = min(ends_at, START + timedelta(days=60))
        assert windows == {TERM_WINDOW: ends_at, **dict.fromkeys(TRIALS, trial_ends_at)}
        assert pool["state"] == state
    extended = await eventually(lambda: entitlements.service.published(FeatureWindowExtended))
    assert {event.data.feature for event in extended} == {TERM_WINDOW}
    if state == "open":
        assert {(event.data.previous_ends_at, event.data.ends_at) for event in extended} == {(END, NEXT_END)}


async def test_a_term_that_is_not_renewed_ends_the_pool_whichever_topic_comes_first(
    entitlements: Entitlements,
) -> None:
    def of_enrollment(agency: Entitlements) -> list[Event]:
        return [agency.enrolled(3), suspended(agency)]

    def of_billing(agency: Entitlements) -> list[Event]:
        return [agency.term(), agency.renewal("declined"), agency.term_ended()]

    for pool, windows in await outcomes(entitlements, of_enrollment, of_billing):
        assert (pool["ends_at"], pool["ended"]) == (END, True)
        assert windows == {TERM_WINDOW: END, **dict.fromkeys(TRIALS, START + timedelta(days=60))}
        assert pool["state"] == "ended"


async def test_the_end_of_a_term_takes_its_seats_back(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=3)
    await entitlements.assign("ada")
    await entitlements.service.publish(entitlements.term(), entitlements.term_ended())
    await eventually_state(entitlements, "ended")
    refused = await entitlements.assign("bob")
    assert (refused.status_code, refused.json()["reason"]) == (409, "ended")
    assert (await entitlements.pool())["in_use"] == 0
    [revoked] = await eventually(lambda: entitlements.service.published(SeatRevoked))
    assert revoked.data.reason == "term_ended"


async def test_seats_are_kept_while_a_late_offer_is_open_and_can_be_used_again_once_it_is_accepted(
    entitlements: Entitlements,
) -> None:
    await entitlements.enroll(cap=3)
    await entitlements.assign("ada")
    await entitlements.service.publish(entitlements.term())
    entitlements.service.clock.move(END + timedelta(days=20))
    assert (await entitlements.check("ada"))["reason"] == "ended"
    assert (await entitlements.pool())["in_use"] == 1
    ends_at = END + timedelta(days=385)
    late = {"next_starts_at": END + timedelta(days=20), "next_ends_at": ends_at}
    accepted = entitlements.renewal("accepted").model_copy(update=late)
    await entitlements.service.publish(accepted, entitlements.term_ended(renewed=True))
    await eventually_state(entitlements, "open")
    assert (await entitlements.check("ada"))["verdict"] == "allowed"
    windows = await entitlements.service.admin.fetch("select ends_at from feature_window where not trial")
    assert [row["ends_at"] for row in windows] == [ends_at]


async def test_billings_end_of_a_withdrawn_term_changes_nothing(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=3)
    await entitlements.service.publish(entitlements.term(), entitlements.term_ended(reason="withdrawn"))
    await eventually(lambda: applied(entitlements, 3))
    assert (await entitlements.pool())["state"] == "open"


async def test_a_term_that_never_started_parks_its_agency(entitlements: Entitlements) -> None:
    await entitlements.service.publish(entitlements.renewal("accepted"))

    async def parked() -> Any:
        return await entitlements.service.admin.fetchval("select reason from parked_stream")

    assert "TermStarted never arrived" in await eventually(parked)


async def outcomes(
    entitlements: Entitlements, of_enrollment: Any, of_billing: Any
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Send the events to one agency for each order of the two topics; returns its pool and its windows' ends."""
    results = []
    count = len(interleavings(of_enrollment(entitlements), of_billing(entitlements)))
    for number in range(count):
        agency = Entitlements(entitlements.service, f"AGENCY-{number}")
        for event in interleavings(of_enrollment(agency), of_billing(agency))[number]:
            before = await total_applied(agency)
            await agency.service.publish(event)
            await eventually(lambda agency=agency, before=before: applied(agency, before + 1))
        admin = agency.service.admin
        pool = await admin.fetchrow("select ends_at, ended from pool where agency_id = $1", agency.agency)
        assert pool is not None
        windows = await admin.fetch("select feature, ends_at from feature_window where agency_id = $1", agency.agency)
        state = (await agency.pool())["state"]
        results.append(({**pool, "state": state}, {row["feature"]: row["ends_at"] for row in windows}))
    return results


def suspended(entitlements: Entitlements) -> AgencySuspended:
    return AgencySuspended(
        agency_id=entitlements.agency, enrollment_id="enr_1", reason="atu_lapsed", suspended_at=START
    )


async def total_applied(entitlements: Entitlements) -> int:
    total: int = await entitlements.service.admin.fetchval(
        "select coalesce(sum(last_sequence), 0)::bigint from applied where agency_id = $1", entitlements.agency
    )
    return total


async def applied(entitlements: Entitlements, count: int) -> bool:
    return await total_applied(entitlements) == count


async def eventually_state(entitlements: Entitlements, state: str) -> None:
    async def reached() -> bool:
        return bool((await entitlements.pool())["state"] == state)

    await eventually(reached)

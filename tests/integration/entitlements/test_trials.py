"""Trials: announced 14, 7, and 1 days before their end, and over at its instant; each once."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from muster_contracts.enrollment import AgencyReinstated, AgencySuspended
from muster_contracts.entitlements import TrialEndingSoon, TrialExpired
from muster_operator.reconcile.books import read_trials
from tests.integration.entitlements.conftest import END, NEXT_END, START, Entitlements
from tests.integration.entitlements.test_catalog import FRONTIER, RESEARCH, publish, rolled_out
from tests.support.eventually import eventually

TRIAL_END = START + timedelta(days=60)
TRIALS = ["advanced-voice-mode", "deep-research"]


async def test_notices_and_the_end_come_once_each_at_their_instants(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    for days in (14, 7, 1):
        entitlements.service.clock.move(TRIAL_END - timedelta(days=days, microseconds=1))
        before = await entitlements.service.published(TrialEndingSoon)
        assert days not in {event.data.days_left for event in before}
        entitlements.service.clock.move(TRIAL_END - timedelta(days=days))
        await eventually(lambda days=days: told(entitlements, days))
    entitlements.service.clock.move(TRIAL_END)
    await eventually(lambda: expired(entitlements))
    entitlements.service.clock.move(END)

    notices = await entitlements.service.published(TrialEndingSoon)
    assert sorted((event.data.days_left, event.data.feature, event.envelope.time) for event in notices) == sorted(
        (days, feature, TRIAL_END - timedelta(days=days)) for days in (1, 7, 14) for feature in TRIALS
    )
    ends = await entitlements.service.published(TrialExpired)
    assert [(event.data.expired_at, event.envelope.time) for event in ends] == [(TRIAL_END, TRIAL_END)] * 2
    assert {event.data.feature: event.data.monthly_quota_after for event in ends} == {
        "advanced-voice-mode": 60,
        "deep-research": 25,
    }
    assert {event.data.mode_after for event in ends} == {"quota"}
    assert await entitlements.service.admin.fetchval("select count(*) from deadline") == 0


async def test_after_an_outage_no_notice_says_what_is_no_longer_true(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    entitlements.service.clock.move(TRIAL_END - timedelta(days=6, hours=1))  # nobody has looked for 53 days
    await eventually(lambda: told(entitlements, 7))
    entitlements.service.clock.move(TRIAL_END - timedelta(days=1))
    await eventually(lambda: told(entitlements, 1))
    assert not await told(entitlements, 14)  # eight days late: there were six left


async def test_after_an_outage_past_its_end_a_trial_is_said_to_be_over_and_nothing_else(
    entitlements: Entitlements,
) -> None:
    entitlements.service.clock.move(END)
    await entitlements.service.publish(entitlements.enrolled(1))
    await eventually(lambda: expired(entitlements))
    assert {event.envelope.time for event in await entitlements.service.published(TrialExpired)} == {TRIAL_END}
    assert await entitlements.service.published(TrialEndingSoon) == []


async def test_reconcile_finds_fault_with_a_trial_that_nothing_will_close_and_with_no_other(
    entitlements: Entitlements,
) -> None:
    """The last audit row is older than the expiry, which leaves none."""
    admin = entitlements.service.admin
    await entitlements.enroll(cap=1)
    await replace(entitlements, agency="DOE").enroll(cap=1)
    assert [trial.scheduled for trial in await read_trials(admin)] == [True] * 4
    await admin.execute("delete from deadline where agency_id = 'DOE'")
    assert [(trial.agency_id, trial.scheduled) for trial in await read_trials(admin)] == [
        ("DOE", False),
        ("DOE", False),
        ("NASA", True),
        ("NASA", True),
    ]
    entitlements.service.clock.move(TRIAL_END)
    await eventually(lambda: expired(entitlements))
    assert [(trial.agency_id, trial.scheduled) for trial in await read_trials(admin)] == [("DOE", False)] * 2


async def test_a_check_follows_the_windows(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    seat = (await entitlements.assign("ada")).json()
    open_ = await entitlements.check("ada")
    assert (open_["verdict"], open_["reason"], open_["valid_until"]) == (
        "allowed",
        "window_open",
        "2025-10-05T00:00:00Z",
    )
    entitlements.service.clock.move(TRIAL_END)
    quota = await entitlements.check("ada")
    assert (quota["verdict"], quota["reason"], quota["monthly_quota"]) == ("allowed", "quota", 25)
    assert quota["valid_until"] == "2026-08-06T00:00:00Z"
    assert quota["revision"] == open_["revision"]

    by_reference = await entitlements.get("checks", subject=seat["subject_ref"])
    assert (by_reference.json()["verdict"], by_reference.json()["reason"]) == ("allowed", "seat_assigned")
    await entitlements.post(f"seats/{seat['seat_id']}/activation")
    active = (await entitlements.get("checks", subject=seat["subject_ref"])).json()
    assert active["reason"] == "seat_active"
    assert active["revision"] > quota["revision"]
    assert (await entitlements.check("bob"))["reason"] == "no_seat"
    entitlements.service.clock.move(END)
    assert (await entitlements.check("ada"))["reason"] == "ended"
    other = Entitlements(entitlements.service, "GSA")
    unknown = await other.check("ada")
    assert (unknown["verdict"], unknown["reason"], unknown["revision"]) == ("refused", "unknown", 0)


async def enroll_again(
    entitlements: Entitlements, number: int, starts_at: datetime, time_zone: str | None = None
) -> dict[str, tuple[datetime, datetime]]:
    """Enroll once more from an instant; returns when each trial starts and ends."""
    enrollment_id = f"enr_{number}"
    enrolled = entitlements.enrolled(1, enrollment_id)
    term = {"starts_at": starts_at, "ends_at": starts_at + timedelta(days=365), "time_zone": time_zone}
    await entitlements.service.publish(enrolled.model_copy(update=term))
    await eventually(lambda: is_open(entitlements, enrollment_id))
    rows = await entitlements.service.admin.fetch(
        "select feature, starts_at, ends_at from feature_window where enrollment_id = $1 and trial", enrollment_id
    )
    return {row["feature"]: (row["starts_at"], row["ends_at"]) for row in rows}


async def is_open(entitlements: Entitlements, enrollment_id: str) -> bool:
    return bool((await entitlements.pool())["enrollment_id"] == enrollment_id)


async def pass_time(entitlements: Entitlements, until: datetime) -> None:
    """Move the clock to an instant through all those at which something is due, so that nothing is late."""

    async def handled(due: datetime) -> bool:
        return not await entitlements.service.admin.fetchval("select count(*) from deadline where due_at <= $1", due)

    next_due = "select min(due_at) from deadline where due_at <= $1"
    while (due := await entitlements.service.admin.fetchval(next_due, until)) is not None:
        entitlements.service.clock.move(max(due, entitlements.service.clock.now()))
        await eventually(lambda due=due: handled(due))
    entitlements.service.clock.move(until)


async def withdraw(entitlements: Entitlements, enrollment_id: str, at: datetime) -> None:
    await pass_time(entitlements, at)
    await entitlements.service.publish(entitlements.withdrawn(enrollment_id, at))

    async def withdrawn() -> bool:
        return bool((await entitlements.pool())["state"] == "withdrawn")

    await eventually(withdrawn)


async def test_a_second_enrollment_continues_what_is_left_of_a_trial(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    await withdraw(entitlements, "enr_1", START + timedelta(days=10))
    again = START + timedelta(days=100)
    entitlements.service.clock.move(again)
    assert await enroll_again(entitlements, 2, again) == dict.fromkeys(TRIALS, (again, again + timedelta(days=50)))

    # What two enrollments have used counts together; only the notices within the rest are sent.
    await withdraw(entitlements, "enr_2", again + timedelta(days=40))
    third = again + timedelta(days=60)
    entitlements.service.clock.move(third)
    assert await enroll_again(entitlements, 3, third) == dict.fromkeys(TRIALS, (third, third + timedelta(days=10)))
    await pass_time(entitlements, third + timedelta(days=10))
    await eventually(lambda: expired(entitlements))
    notices = await entitlements.service.published(TrialEndingSoon)
    assert sorted(event.data.days_left for event in notices) == [1, 1, 7, 7, 14, 14]
    assert {event.envelope.time for event in notices if event.data.days_left == 7} == {third + timedelta(days=3)}

    # Nothing is left for a fourth one: the quota holds from its first day, and no trial is announced.
    await withdraw(entitlements, "enr_3", third + timedelta(days=20))
    fourth = third + timedelta(days=30)
    entitlements.service.clock.move(fourth)
    assert await enroll_again(entitlements, 4, fourth) == dict.fromkeys(TRIALS, (fourth, fourth))
    await entitlements.assign("ada")
    assert (await entitlements.check("ada"))["reason"] == "quota"
    assert await entitlements.service.admin.fetchval("select count(*) from deadline where kind like 'trial%'") == 0
    assert len(await entitlements.service.published(TrialExpired)) == len(TRIALS)


async def test_a_trial_that_was_used_up_across_a_change_of_the_clocks_leaves_no_rest(
    entitlements: Entitlements,
) -> None:
    there, starts = "America/New_York", datetime(2026, 3, 1, 5, tzinfo=UTC)  # a midnight there
    for number, begins in enumerate((starts, starts + timedelta(days=80)), 1):
        await pass_time(entitlements, begins)
        found = await enroll_again(entitlements, number, begins, there)
        ends_at = begins if number == 2 else datetime(2026, 4, 30, 4, tzinfo=UTC)
        assert found == dict.fromkeys(TRIALS, (begins, ends_at))
        await withdraw(entitlements, f"enr_{number}", begins + timedelta(days=70))


async def test_what_a_version_ends_of_a_trial_is_used_by_the_clocks_of_the_agency(entitlements: Entitlements) -> None:
    there, starts = "America/New_York", datetime(2026, 3, 1, 5, tzinfo=UTC)
    await pass_time(entitlements, starts)
    await enroll_again(entitlements, 1, starts, there)
    over = datetime(2026, 4, 30, 4, tzinfo=UTC)
    await pass_time(entitlements, over)
    await publish(entitlements, [FRONTIER, FRONTIER | {"key": "deep-research"}])
    await eventually(lambda: rolled_out(entitlements, 2))
    await publish(entitlements, [RESEARCH | {"trial_days": 60}], "new-agencies")
    await withdraw(entitlements, "enr_1", over + timedelta(days=5))
    again = over + timedelta(days=10)
    await pass_time(entitlements, again)
    assert await enroll_again(entitlements, 2, again, there) == {"deep-research": (again, again)}


async def test_an_enrollment_withdrawn_before_it_starts_uses_nothing_of_a_trial(entitlements: Entitlements) -> None:
    later = START + timedelta(days=30)
    await enroll_again(entitlements, 1, later)
    await withdraw(entitlements, "enr_1", START + timedelta(days=5))
    assert await enroll_again(entitlements, 2, later) == dict.fromkeys(TRIALS, (later, later + timedelta(days=60)))


async def test_an_enrollment_that_takes_over_ends_the_trial_of_the_earlier_one(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    over = START + timedelta(days=20)
    entitlements.service.clock.move(over)
    assert await enroll_again(entitlements, 2, over) == dict.fromkeys(TRIALS, (over, TRIAL_END))
    await pass_time(entitlements, TRIAL_END)
    await eventually(lambda: expired(entitlements))
    notices = await entitlements.service.published(TrialEndingSoon)
    assert sorted(event.data.days_left for event in notices) == [1, 1, 7, 7, 14, 14]


async def test_a_trial_goes_on_while_the_agency_is_suspended_and_after_a_renewal(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    await entitlements.service.publish(
        AgencySuspended(agency_id="NASA", enrollment_id="enr_1", reason="atu_lapsed", suspended_at=START),
        AgencyReinstated(agency_id="NASA", enrollment_id="enr_1", reinstated_at=START + timedelta(days=30)),
    )
    await entitlements.service.publish(entitlements.term(), entitlements.renewal("accepted"))

    async def renewed() -> bool:
        return bool((await entitlements.pool())["ends_at"] == NEXT_END.isoformat().replace("+00:00", "Z"))

    await eventually(renewed)
    ends = await entitlements.service.admin.fetch("select distinct ends_at from feature_window where trial")
    assert [row["ends_at"] for row in ends] == [TRIAL_END]


async def test_an_enrollment_after_a_completed_term_has_no_trial_left(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    await entitlements.service.publish(entitlements.term(), entitlements.term_ended())
    entitlements.service.clock.move(END)
    await eventually(lambda: expired(entitlements))
    assert await enroll_again(entitlements, 2, END) == dict.fromkeys(TRIALS, (END, END))


async def told(entitlements: Entitlements, days: int) -> bool:
    notices = await entitlements.service.published(TrialEndingSoon)
    return sorted(event.data.feature for event in notices if event.data.days_left == days) == TRIALS


async def expired(entitlements: Entitlements) -> bool:
    return sorted(event.data.feature for event in await entitlements.service.published(TrialExpired)) == TRIALS


@pytest.mark.parametrize("ended", [True, False], ids=["after the term's end is published", "before"])
async def test_a_trial_is_not_spent_after_a_term_that_is_not_renewed(entitlements: Entitlements, ended: bool) -> None:
    """A feature comes ten days before the term's end: the rest of its trial is for the next enrollment."""
    service = entitlements.service
    await publish(entitlements, [FRONTIER], "new-agencies")
    await entitlements.enroll(cap=2)
    comes = END - timedelta(days=10)
    await pass_time(entitlements, comes)
    await publish(entitlements, [FRONTIER, RESEARCH | {"trial_days": 60}])
    await eventually(lambda: rolled_out(entitlements, 3))
    await pass_time(entitlements, END)
    if ended:
        await service.publish(entitlements.term(), entitlements.term_ended())
        await eventually(lambda: service.admin.fetchval("select ended from pool"))
        assert await service.admin.fetchval("select count(*) from deadline where kind like 'trial%'") == 0
    again = END + timedelta(days=30)
    await pass_time(entitlements, again)
    found = await enroll_again(entitlements, 2, again)
    assert found["deep-research"] == (again, again + timedelta(days=50))

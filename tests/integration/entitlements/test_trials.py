"""Trials: told of 14, 7 and 1 days before, and over at the instant; each once."""

from datetime import timedelta

from muster_contracts.entitlements import TrialEndingSoon, TrialExpired
from tests.integration.entitlements.conftest import END, START, Entitlements

TRIAL_END = START + timedelta(days=60)
TRIALS = ["advanced-voice-mode", "deep-research"]


async def test_notices_and_the_end_come_once_each_at_their_instants(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    for days in (14, 7, 1):
        entitlements.service.clock.move(TRIAL_END - timedelta(days=days, microseconds=1))
        before = await entitlements.service.published(TrialEndingSoon)
        assert days not in {event.data.days_left for event in before}
        entitlements.service.clock.move(TRIAL_END - timedelta(days=days))
        await entitlements.eventually(lambda days=days: told(entitlements, days))
    entitlements.service.clock.move(TRIAL_END)
    await entitlements.eventually(lambda: expired(entitlements))
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


async def test_what_was_missed_is_caught_up_with_in_order_and_at_its_own_time(entitlements: Entitlements) -> None:
    entitlements.service.clock.move(END)
    await entitlements.service.publish(entitlements.enrolled(1))
    await entitlements.eventually(lambda: expired(entitlements))

    async def all_told() -> bool:
        return len(await entitlements.service.published(TrialEndingSoon)) == 6

    await entitlements.eventually(all_told)
    notices = await entitlements.service.published(TrialEndingSoon)
    times = [event.envelope.time for event in notices]
    assert times == sorted(times)
    assert set(times) == {TRIAL_END - timedelta(days=days) for days in (14, 7, 1)}


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
    other = Entitlements(entitlements.service, entitlements.eventually, "GSA")
    unknown = await other.check("ada")
    assert (unknown["verdict"], unknown["reason"], unknown["revision"]) == ("refused", "unknown", 0)


async def told(entitlements: Entitlements, days: int) -> bool:
    notices = await entitlements.service.published(TrialEndingSoon)
    return sorted(event.data.feature for event in notices if event.data.days_left == days) == TRIALS


async def expired(entitlements: Entitlements) -> bool:
    return sorted(event.data.feature for event in await entitlements.service.published(TrialExpired)) == TRIALS

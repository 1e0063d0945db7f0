"""Lists of use: of the current period as checks count it, and of earlier ones as they were counted."""

from datetime import UTC, datetime
from typing import Any

from tests.integration.entitlements.conftest import Entitlements
from tests.integration.entitlements.test_catalog import publish, rolled_out
from tests.integration.entitlements.test_quota_copies import NOTES
from tests.integration.entitlements.test_trials import enroll_again, withdraw
from tests.integration.entitlements.test_usage_periods import change
from tests.integration.entitlements.test_windows import decision, send, windows
from tests.support.eventually import eventually


async def use(entitlements: Entitlements, subject_ref: str, at: datetime, amount: int) -> None:
    entitlements.service.clock.move(at)
    body = {"subject": subject_ref, "feature": "notes", "amount": amount}
    assert (await entitlements.post("usage/consume", body)).status_code == 200


async def withdraw_and_enroll_again(entitlements: Entitlements, withdrawn_at: datetime) -> None:
    await withdraw(entitlements, "enr_1", withdrawn_at)
    again = datetime(2025, 12, 10, tzinfo=UTC)
    entitlements.service.clock.move(again)
    await enroll_again(entitlements, 2, again)


async def listed(entitlements: Entitlements, **asked: str) -> list[tuple[Any, ...]]:
    items = (await entitlements.get("usage", feature="notes", **asked)).json()["items"]
    return [(each["subject_ref"], each["starts_at"][:10], each["ends_at"][:10], each["used"]) for each in items]


async def paged(entitlements: Entitlements, since: str, until: str) -> list[tuple[str, str, int]]:
    """The agency's use in the periods from one day to another, each read at the end of the one before."""
    found: list[tuple[str, str, int]] = []
    while since < until:
        (_, starts, ends, amount), *_ = await listed(entitlements, period_at=f"{since}T00:00:00Z")
        assert since < ends, (since, ends, found)
        found.append((starts, ends, amount))
        since = ends
    return found


async def test_only_the_use_of_the_current_period_is_listed(entitlements: Entitlements) -> None:
    await publish(entitlements, [NOTES | {"trial_days": 60}], "new-agencies")
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    await use(entitlements, ada, datetime(2025, 10, 2, tzinfo=UTC), 4)
    assert await listed(entitlements) == [(who, "2025-10-01", "2025-10-05", 4) for who in (None, ada)]

    await change(entitlements, "extension", ends_on="2025-11-20")  # the period continues
    entitlements.service.clock.move(datetime(2025, 10, 6, tzinfo=UTC))
    assert (await entitlements.check("ada", "notes"))["used"] == 4
    assert await listed(entitlements) == [(who, "2025-10-01", "2025-11-01", 4) for who in (None, ada)]

    await change(entitlements, "start", starts_on="2025-10-04")  # another one has begun
    assert await listed(entitlements) == []
    await use(entitlements, ada, datetime(2025, 10, 6, tzinfo=UTC), 1)
    assert await listed(entitlements) == [(who, "2025-10-04", "2025-11-01", 1) for who in (None, ada)]
    assert await listed(entitlements, limit="1") == [(None, "2025-10-04", "2025-11-01", 1)]


async def test_the_use_of_an_earlier_period_is_listed_as_it_was_counted(entitlements: Entitlements) -> None:
    await publish(entitlements, [NOTES | {"trial_days": 60, "mode_after": "quota"}], "new-agencies")
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    clock = entitlements.service.clock

    await use(entitlements, ada, datetime(2025, 10, 4, tzinfo=UTC), 2)
    await use(entitlements, ada, datetime(2025, 10, 6, tzinfo=UTC), 3)  # after the trial
    clock.move(datetime(2025, 12, 2, tzinfo=UTC))
    assert await listed(entitlements) == []
    trial = [(who, "2025-10-01", "2025-10-05", 2) for who in (None, ada)]
    month = [(who, "2025-10-05", "2025-11-01", 3) for who in (None, ada)]
    assert await listed(entitlements, period_at="2025-10-01T00:00:00Z") == trial
    assert await listed(entitlements, period_at="2025-10-31T23:59:59Z") == month
    for unused in ("2025-11-01T00:00:00Z", "2025-09-30T00:00:00Z"):
        assert await listed(entitlements, period_at=unused) == []
    first = (await entitlements.get("usage", feature="notes", period_at="2025-10-06T00:00:00Z", limit="1")).json()
    assert await listed(entitlements, period_at="2025-10-06T00:00:00Z", limit="1", after=first["next"]) == month[1:]
    await use(entitlements, ada, datetime(2025, 12, 3, tzinfo=UTC), 1)
    assert await listed(entitlements, period_at="2025-12-01T00:00:00Z") == await listed(entitlements) != []
    for wrong in ("2025-12-04T00:00:00Z", "0001-01-01T00:00:00Z", "2025-10"):
        refused = await entitlements.get("usage", feature="notes", period_at=wrong)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "period_at")


async def test_an_earlier_period_that_a_decision_has_moved_keeps_its_use(entitlements: Entitlements) -> None:
    await publish(entitlements, [NOTES | {"trial_days": 60}], "new-agencies")
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    await use(entitlements, ada, datetime(2025, 9, 28, tzinfo=UTC), 4)
    await use(entitlements, ada, datetime(2025, 10, 2, tzinfo=UTC), 4)

    await change(entitlements, "extension", ends_on="2025-11-20")  # to beyond the month, without another use
    entitlements.service.clock.move(datetime(2025, 11, 2, tzinfo=UTC))
    extended = [(who, "2025-10-01", "2025-11-01", 4) for who in (None, ada)]
    for day in (1, 31):
        assert await listed(entitlements, period_at=f"2025-10-{day:02}T00:00:00Z") == extended

    await change(entitlements, "start", starts_on="2025-09-20")  # use of September was counted from September 1 on
    september = [(who, "2025-09-01", "2025-10-01", 4) for who in (None, ada)]
    for day in (10, 29):
        assert await listed(entitlements, period_at=f"2025-09-{day}T00:00:00Z") == september


async def test_earlier_periods_end_as_they_were_counted_once_another_window_has_opened(
    entitlements: Entitlements,
) -> None:
    await publish(entitlements, [NOTES | {"trial_days": 60, "mode_after": "quota"}], "new-agencies")
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    for day, amount in ((4, 2), (6, 3)):  # before and after the trial's end
        await use(entitlements, ada, datetime(2025, 10, day, tzinfo=UTC), amount)
    await withdraw_and_enroll_again(entitlements, datetime(2025, 10, 20, tzinfo=UTC))
    trial = [(who, "2025-10-01", "2025-10-05", 2) for who in (None, ada)]
    after = [(who, "2025-10-05", "2025-11-01", 3) for who in (None, ada)]
    for day, expected in ((2, trial), (5, after), (31, after)):
        assert await listed(entitlements, period_at=f"2025-10-{day:02}T00:00:00Z") == expected
    assert await listed(entitlements, period_at="2025-11-01T00:00:00Z") == []


async def test_use_of_a_period_that_a_version_has_replaced_is_listed_at_its_instants(
    entitlements: Entitlements,
) -> None:
    rolling = NOTES | {"quota": {"limit": 10, "period": "anchor"}}
    await publish(entitlements, [rolling], "new-agencies")
    await entitlements.enroll(cap=2)  # on August 6
    ada = (await entitlements.assign("ada")).json()["subject_ref"]

    await use(entitlements, ada, datetime(2025, 9, 10, tzinfo=UTC), 4)
    await publish(entitlements, [rolling | {"quota": {"limit": 10}}])
    await eventually(lambda: rolled_out(entitlements, 3))
    earlier = [(who, "2025-09-06", "2025-10-06", 4) for who in (None, ada)]
    assert await listed(entitlements) == []
    assert await listed(entitlements, period_at="2025-09-08T00:00:00Z") == earlier
    await use(entitlements, ada, datetime(2025, 9, 12, tzinfo=UTC), 1)
    month = [(who, "2025-09-01", "2025-10-01", 1) for who in (None, ada)]
    assert await listed(entitlements) == month
    assert await listed(entitlements, period_at="2025-09-02T00:00:00Z") == month
    assert await listed(entitlements, period_at="2025-09-08T00:00:00Z") == earlier
    entitlements.service.clock.move(datetime(2025, 11, 2, tzinfo=UTC))
    both = [("2025-09-01", "2025-09-06", 1), ("2025-09-06", "2025-10-06", 4)]
    assert await paged(entitlements, "2025-09-01", "2025-10-06") == both


async def test_earlier_periods_read_one_after_another_have_all_use_once(entitlements: Entitlements) -> None:
    """Their ends have moved since their last use, and the windows that cut them are of an earlier enrollment."""
    await publish(entitlements, [NOTES | {"trial_days": 30, "mode_after": "quota"}], "new-agencies")
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]

    await use(entitlements, ada, datetime(2025, 9, 2, tzinfo=UTC), 1)
    await change(entitlements, "extension", ends_on="2025-09-19")  # from September 5, without another use
    await use(entitlements, ada, datetime(2025, 9, 22, tzinfo=UTC), 2)
    await withdraw_and_enroll_again(entitlements, datetime(2025, 9, 25, tzinfo=UTC))
    whole = [("2025-09-01", "2025-09-20", 1), ("2025-09-20", "2025-10-01", 2)]
    assert await paged(entitlements, "2025-09-01", "2025-10-01") == whole
    assert (await listed(entitlements, period_at="2025-09-10T00:00:00Z"))[0][1:] == whole[0]


async def test_a_trial_that_was_ended_early_cuts_its_period_also_once_another_window_has_opened(
    entitlements: Entitlements,
) -> None:
    await publish(entitlements, [NOTES | {"trial_days": 60, "mode_after": "quota"}], "new-agencies")
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]

    await use(entitlements, ada, datetime(2025, 9, 10, tzinfo=UTC), 1)
    entitlements.service.clock.move(datetime(2025, 9, 20, tzinfo=UTC))
    path = decision(entitlements, "end", "notes", await windows(entitlements))
    assert (await send(entitlements, path, "ann", reason="misuse")).status_code == 200
    whole = [("2025-09-01", "2025-09-20", 1), ("2025-09-20", "2025-10-01", 2)]
    entitlements.service.clock.move(datetime(2025, 9, 21, tzinfo=UTC))
    assert await paged(entitlements, "2025-09-01", "2025-09-20") == whole[:1]
    await use(entitlements, ada, datetime(2025, 9, 22, tzinfo=UTC), 2)
    entitlements.service.clock.move(datetime(2025, 10, 2, tzinfo=UTC))
    assert await paged(entitlements, "2025-09-01", "2025-10-01") == whole
    await withdraw_and_enroll_again(entitlements, datetime(2025, 10, 3, tzinfo=UTC))
    assert await paged(entitlements, "2025-09-01", "2025-10-01") == whole


async def test_an_unknown_feature_has_no_use_to_list(entitlements: Entitlements) -> None:
    reply = await entitlements.get("usage", feature="deep-research")
    assert (reply.status_code, reply.json()["type"].rsplit(":", 1)[-1]) == (404, "pool-unknown")
    await publish(entitlements, [NOTES], "new-agencies")
    await entitlements.enroll(cap=1)
    reply = await entitlements.get("usage", feature="noted")
    assert (reply.status_code, reply.json()["nearest"]) == (404, ["notes"])
    for feature in ("notes", "deep-research"):  # an earlier version had the latter
        reply = await entitlements.get("usage", feature=feature)
        assert (reply.status_code, reply.json()["items"]) == (200, [])

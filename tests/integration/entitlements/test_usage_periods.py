"""The current period: decisions about a trial move it, and lists of use show what checks count."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.integration.entitlements.conftest import END, START, Entitlements
from tests.integration.entitlements.test_catalog import FRONTIER, publish, rolled_out
from tests.integration.entitlements.test_next_terms import renew
from tests.integration.entitlements.test_quota_copies import NOTES
from tests.integration.entitlements.test_snapshots import following
from tests.integration.entitlements.test_trials import enroll_again, withdraw
from tests.integration.entitlements.test_usage import report, used
from tests.integration.entitlements.test_windows import decision, send, windows
from tests.support.eventually import eventually


async def change(entitlements: Entitlements, path: str, **body: str) -> None:
    path = decision(entitlements, path, "notes", await windows(entitlements))
    proposed = await send(entitlements, path, "ann", reason="pilot", **body)
    approved = await send(entitlements, f"{proposed.headers['location']}/approval", "bob")
    assert approved.status_code == 200, approved.text


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
    use = {"subject": ada, "feature": "notes", "amount": 4}

    entitlements.service.clock.move(datetime(2025, 10, 2, tzinfo=UTC))
    assert (await entitlements.post("usage/consume", use)).status_code == 200
    assert await listed(entitlements) == [(who, "2025-10-01", "2025-10-05", 4) for who in (None, ada)]

    await change(entitlements, "extension", ends_on="2025-11-20")  # the period continues
    entitlements.service.clock.move(datetime(2025, 10, 6, tzinfo=UTC))
    assert (await entitlements.check("ada", "notes"))["used"] == 4
    assert await listed(entitlements) == [(who, "2025-10-01", "2025-11-01", 4) for who in (None, ada)]

    await change(entitlements, "start", starts_on="2025-10-04")  # another one has begun
    assert await listed(entitlements) == []
    assert (await entitlements.post("usage/consume", use | {"amount": 1})).status_code == 200
    assert await listed(entitlements) == [(who, "2025-10-04", "2025-11-01", 1) for who in (None, ada)]
    assert await listed(entitlements, limit="1") == [(None, "2025-10-04", "2025-11-01", 1)]


async def test_the_use_of_an_earlier_period_is_listed_as_it_was_counted(entitlements: Entitlements) -> None:
    await publish(entitlements, [NOTES | {"trial_days": 60, "mode_after": "quota"}], "new-agencies")
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    clock = entitlements.service.clock

    async def use(amount: int, at: datetime) -> None:
        clock.move(at)
        body = {"subject": ada, "feature": "notes", "amount": amount}
        assert (await entitlements.post("usage/consume", body)).status_code == 200

    await use(2, datetime(2025, 10, 4, tzinfo=UTC))
    await use(3, datetime(2025, 10, 6, tzinfo=UTC))  # after the trial
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
    await use(1, datetime(2025, 12, 3, tzinfo=UTC))
    assert await listed(entitlements, period_at="2025-12-01T00:00:00Z") == await listed(entitlements) != []
    for wrong in ("2025-12-04T00:00:00Z", "0001-01-01T00:00:00Z", "2025-10"):
        refused = await entitlements.get("usage", feature="notes", period_at=wrong)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "period_at")


async def test_an_earlier_period_that_a_decision_has_moved_keeps_its_use(entitlements: Entitlements) -> None:
    await publish(entitlements, [NOTES | {"trial_days": 60}], "new-agencies")
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    entitlements.service.clock.move(datetime(2025, 9, 28, tzinfo=UTC))
    use = {"subject": ada, "feature": "notes", "amount": 4}
    assert (await entitlements.post("usage/consume", use)).status_code == 200
    entitlements.service.clock.move(datetime(2025, 10, 2, tzinfo=UTC))
    assert (await entitlements.post("usage/consume", use)).status_code == 200

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
        entitlements.service.clock.move(datetime(2025, 10, day, tzinfo=UTC))
        use = {"subject": ada, "feature": "notes", "amount": amount}
        assert (await entitlements.post("usage/consume", use)).status_code == 200
    await withdraw(entitlements, "enr_1", datetime(2025, 10, 20, tzinfo=UTC))
    again = datetime(2025, 12, 10, tzinfo=UTC)
    entitlements.service.clock.move(again)
    await enroll_again(entitlements, 2, again)
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

    async def use(day: int, amount: int) -> None:
        entitlements.service.clock.move(datetime(2025, 9, day, tzinfo=UTC))
        body = {"subject": ada, "feature": "notes", "amount": amount}
        assert (await entitlements.post("usage/consume", body)).status_code == 200

    await use(10, 4)
    await publish(entitlements, [rolling | {"quota": {"limit": 10}}])
    await eventually(lambda: rolled_out(entitlements, 3))
    earlier = [(who, "2025-09-06", "2025-10-06", 4) for who in (None, ada)]
    assert await listed(entitlements) == []
    assert await listed(entitlements, period_at="2025-09-08T00:00:00Z") == earlier
    await use(12, 1)
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

    async def use(day: int, amount: int) -> None:
        entitlements.service.clock.move(datetime(2025, 9, day, tzinfo=UTC))
        body = {"subject": ada, "feature": "notes", "amount": amount}
        assert (await entitlements.post("usage/consume", body)).status_code == 200

    await use(2, 1)
    await change(entitlements, "extension", ends_on="2025-09-19")  # from September 5, without another use
    await use(22, 2)
    await withdraw(entitlements, "enr_1", datetime(2025, 9, 25, tzinfo=UTC))
    again = datetime(2025, 12, 10, tzinfo=UTC)
    entitlements.service.clock.move(again)
    await enroll_again(entitlements, 2, again)
    whole = [("2025-09-01", "2025-09-20", 1), ("2025-09-20", "2025-10-01", 2)]
    assert await paged(entitlements, "2025-09-01", "2025-10-01") == whole
    assert (await listed(entitlements, period_at="2025-09-10T00:00:00Z"))[0][1:] == whole[0]


async def test_a_trial_that_was_ended_early_cuts_its_period_also_once_another_window_has_opened(
    entitlements: Entitlements,
) -> None:
    await publish(entitlements, [NOTES | {"trial_days": 60, "mode_after": "quota"}], "new-agencies")
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]

    async def use(day: int, amount: int) -> None:
        entitlements.service.clock.move(datetime(2025, 9, day, tzinfo=UTC))
        body = {"subject": ada, "feature": "notes", "amount": amount}
        assert (await entitlements.post("usage/consume", body)).status_code == 200

    await use(10, 1)
    entitlements.service.clock.move(datetime(2025, 9, 20, tzinfo=UTC))
    path = decision(entitlements, "end", "notes", await windows(entitlements))
    assert (await send(entitlements, path, "ann", reason="misuse")).status_code == 200
    whole = [("2025-09-01", "2025-09-20", 1), ("2025-09-20", "2025-10-01", 2)]
    entitlements.service.clock.move(datetime(2025, 9, 21, tzinfo=UTC))
    assert await paged(entitlements, "2025-09-01", "2025-09-20") == whole[:1]
    await use(22, 2)
    entitlements.service.clock.move(datetime(2025, 10, 2, tzinfo=UTC))
    assert await paged(entitlements, "2025-09-01", "2025-10-01") == whole
    await withdraw(entitlements, "enr_1", datetime(2025, 10, 3, tzinfo=UTC))
    again = datetime(2025, 12, 10, tzinfo=UTC)
    entitlements.service.clock.move(again)
    await enroll_again(entitlements, 2, again)
    assert await paged(entitlements, "2025-09-01", "2025-10-01") == whole


async def test_a_start_that_is_corrected_to_before_the_current_period_starts_the_quota_again(
    entitlements: Entitlements,
) -> None:
    of_program = {"trial_days": 60, "anchor": "program", "anchor_at": "2025-09-10T00:00:00Z"}
    await publish(entitlements, [NOTES | of_program], "new-agencies")
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    use = {"subject": ada, "feature": "notes", "amount": 10}
    entitlements.service.clock.move(datetime(2025, 9, 12, tzinfo=UTC))
    assert (await entitlements.post("usage/consume", use)).status_code == 200
    assert (await entitlements.check("ada", "notes"))["reason"] == "quota_used_up"

    async def previewed(path: str, **body: str) -> bool:
        path = f"{decision(entitlements, path, 'notes', await windows(entitlements))}/preview"
        reply = await send(entitlements, path, "ann", reason="wrong date", **body)
        assert reply.status_code == 200, reply.text
        return bool(reply.json()["restarts_quota"])

    assert not await previewed("extension", ends_on="2025-12-01")
    assert not await previewed("end", ends_on="2025-10-10")  # that period has not begun
    assert await previewed("start", starts_on="2025-08-20")
    await change(entitlements, "start", starts_on="2025-08-20")
    answer = await entitlements.check("ada", "notes")
    assert (answer["used"], answer["remaining"]) == (0, 10)


async def test_a_month_from_the_windows_start_ends_by_the_agencys_clocks_for_all_who_count(
    entitlements: Entitlements,
) -> None:
    """The window began on August 5 at 20:00 there, in summer; the fourth month begins on November 5 at 20:00."""
    await publish(entitlements, [NOTES | {"quota": {"limit": 10, "period": "anchor"}}], "new-agencies")
    await entitlements.service.publish(entitlements.enrolled(2).model_copy(update={"time_zone": "America/New_York"}))
    await eventually(lambda: windows(entitlements))
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    begins = datetime(2025, 11, 6, 1, tzinfo=UTC)
    first, second = "2025-11-06T01:00:00Z", "2025-12-06T01:00:00Z"

    async def consume(amount: int) -> tuple[int, str]:
        reply = await entitlements.post("usage/consume", {"subject": ada, "feature": "notes", "amount": amount})
        assert reply.status_code == 200, reply.text
        return reply.json()["used"], reply.json()["resets_at"]

    async def checked() -> tuple[str, int, str]:
        answer = await entitlements.check("ada", "notes")
        return answer["reason"], answer["used"], answer["resets_at"]

    async with following(entitlements) as client:

        async def copied(reason: str, used: int | None, resets_at: datetime | None) -> None:
            async def told() -> bool:
                answer = client.check(ada, "notes")
                return (answer.reason, answer.used, answer.resets_at) == (reason, used, resets_at)

            await eventually(told)

        entitlements.service.clock.move(begins - timedelta(days=8))  # in October
        assert await consume(6) == (6, first)
        entitlements.service.clock.move(begins - timedelta(seconds=1))
        late = used(1, ada, begins - timedelta(days=2), amount=4, feature="notes")
        assert (await report(entitlements, late)).json()["counted"] == 1
        assert await checked() == ("quota_used_up", 10, first)
        await copied("quota_used_up", 10, begins)

        entitlements.service.clock.move(begins)
        assert await checked() == ("quota", 0, second)
        await copied("quota", None, None)
        assert await consume(3) == (3, second)
        events = [used(number, ada, begins - timedelta(seconds=3 - number), 2, feature="notes") for number in (2, 3)]
        assert (await report(entitlements, *events)).json()["counted"] == 2  # the first one is of the month before
        assert await checked() == ("quota", 5, second)
        await copied("quota", 5, datetime(2025, 12, 6, 1, tzinfo=UTC))


async def test_late_use_of_an_earlier_enrollment_counts_even_if_the_newest_version_lacks_the_feature(
    entitlements: Entitlements,
) -> None:
    await publish(entitlements, [FRONTIER, NOTES], "new-agencies")
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    await publish(entitlements, [FRONTIER], "new-agencies")
    other, again = replace(entitlements, agency="NSF"), START + timedelta(days=4)
    await other.enroll(cap=2)
    entitlements.service.clock.move(again)
    await entitlements.service.publish(
        entitlements.withdrawn(at=again), entitlements.enrolled(2, "enr_2").model_copy(update={"starts_at": again})
    )

    async def enrolled_again() -> bool:
        return bool((await entitlements.pool())["enrollment_id"] == "enr_2")

    await eventually(enrolled_again)
    at = START + timedelta(days=2)
    events = [used(agency_id, ada, at, feature="notes", agency_id=agency_id) for agency_id in ("NASA", "NSF")]
    reply = (await report(entitlements, *events)).json()
    assert (reply["counted"], [(each["index"], each["field"]) for each in reply["refused"]]) == (
        1,
        [(1, "data.feature")],
    )
    assert await entitlements.service.admin.fetchval("select used from usage_sum where subject_ref <> ''") == 1


async def test_use_before_and_after_the_end_of_a_term_counts_in_one_month_however_late_the_renewal(
    entitlements: Entitlements,
) -> None:
    """Use after the end is charged to no quota until the renewal arrives, even in one batch with use before it."""
    whole = NOTES | {"key": "whole", "name": "Whole", "quota": {"limit": 12, "per": "agency"}}
    await publish(entitlements, [NOTES, whole], "new-agencies")
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    service = entitlements.service
    service.clock.move(END - timedelta(days=1))
    for feature in ("notes", "whole"):
        use = {"subject": ada, "feature": feature, "amount": 4}
        reply = await entitlements.post("usage/consume", use)
        assert (reply.status_code, reply.json()["resets_at"]) == (200, "2026-09-01T00:00:00Z")
    service.clock.move(END + timedelta(days=3))
    events = [
        used(f"{feature}/{days}", ada, END + timedelta(days=days), 4, feature=feature)
        for feature in ("notes", "whole")
        for days in (2, -1)
    ]
    assert (await report(entitlements, *events)).json()["counted"] == 4
    rows = await service.admin.fetch("select feature, used, excess, told from usage_sum where subject_ref = $1", ada)
    assert {tuple(row) for row in rows} == {("notes", 12, 0, 80), ("whole", 12, 0, 0)}
    async with following(entitlements) as client:
        await renew(entitlements)

        async def told(feature: str) -> bool:
            answer, http = client.check(ada, feature), await entitlements.check("ada", feature)
            return (answer.reason, answer.used) == (http["reason"], http["used"]) == ("quota_used_up", 12)

        for feature in ("notes", "whole"):
            await eventually(lambda feature=feature: told(feature))
    assert {row["used"] for row in await service.admin.fetch("select used from usage_sum")} == {12}


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

"""The current period: decisions about a trial move it, and quotas count by it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tests.integration.entitlements.conftest import END, START, Entitlements
from tests.integration.entitlements.test_catalog import FRONTIER, publish
from tests.integration.entitlements.test_next_terms import renew
from tests.integration.entitlements.test_quota_copies import NOTES
from tests.integration.entitlements.test_snapshots import following
from tests.integration.entitlements.test_usage import report, used
from tests.integration.entitlements.test_windows import decision, send, windows
from tests.support.eventually import eventually


async def change(entitlements: Entitlements, path: str, **body: str) -> None:
    path = decision(entitlements, path, "notes", await windows(entitlements))
    proposed = await send(entitlements, path, "ann", reason="pilot", **body)
    approved = await send(entitlements, f"{proposed.headers['location']}/approval", "bob")
    assert approved.status_code == 200, approved.text


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

"""An agency that continues others, after a split or a merger, gets what is left of their trials."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from muster_entitlements.domain.days import zone_of
from muster_entitlements.repository.windows import find_used_trials, list_used_trials
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_catalog import FRONTIER, RESEARCH, publish, rolled_out
from tests.integration.entitlements.test_trials import TRIALS, pass_time, withdraw
from tests.support.eventually import eventually

DAY = timedelta(days=1)
TRIAL = 60 * DAY


async def enroll(
    entitlements: Entitlements,
    agency: str,
    starts_at: datetime,
    continues: Sequence[str] = (),
    number: int = 1,
    time_zone: str | None = None,
    now: datetime | None = None,
) -> tuple[Entitlements, dict[str, datetime]]:
    """Enroll an agency from an instant, then or `now`; returns it, and when each of its trials ends."""
    await pass_time(entitlements, now or starts_at)
    joined = replace(entitlements, agency=agency)
    enrollment_id = f"enr_{agency}_{number}"
    term = {"starts_at": starts_at, "ends_at": starts_at + 365 * DAY, "time_zone": time_zone}
    enrolled = joined.enrolled(5, enrollment_id).model_copy(update={**term, "continues": list(continues)})
    await joined.service.publish(enrolled)

    async def opened() -> bool:
        return bool((await joined.get("pool")).json().get("enrollment_id") == enrollment_id)

    await eventually(opened)
    return joined, await trial_ends(joined, enrollment_id)


async def trial_ends(entitlements: Entitlements, enrollment_id: str) -> dict[str, datetime]:
    """When each trial of an enrollment ends."""
    rows = await entitlements.service.admin.fetch(
        "select feature, ends_at from feature_window where enrollment_id = $1 and trial", enrollment_id
    )
    return {row["feature"]: row["ends_at"] for row in rows}


async def test_a_bureau_that_splits_off_has_what_is_left_of_the_departments_trial(entitlements: Entitlements) -> None:
    _, of_department = await enroll(entitlements, "DOD", START)
    split = START + 20 * DAY
    bureau, ends = await enroll(entitlements, "DOD-USAF", split, ["DOD"])
    assert ends == of_department == dict.fromkeys(TRIALS, START + TRIAL)
    assert await trial_ends(entitlements, "enr_DOD_1") == of_department  # the department's own continues

    # It stays used in the bureau's next enrollment, counted once, whatever the department has used since.
    await withdraw(bureau, "enr_DOD-USAF_1", split + 10 * DAY)
    again = split + 50 * DAY
    assert (await enroll(entitlements, "DOD-USAF", again, number=2))[1] == dict.fromkeys(TRIALS, again + 30 * DAY)

    # A bureau whose enrollment continues no agency begins new trials.
    assert (await enroll(entitlements, "DOD-USN", again))[1] == dict.fromkeys(TRIALS, again + TRIAL)


async def test_a_trial_that_a_version_brings_back_is_not_a_second_one(entitlements: Entitlements) -> None:
    """When the bureau enrolls, the catalog lacks the feature, so no window of the bureau says what is used."""
    await enroll(entitlements, "DOD", START)
    await pass_time(entitlements, START + 20 * DAY)
    await publish(entitlements, [FRONTIER], "new-agencies")
    bureau, ends = await enroll(entitlements, "DOD-USAF", START + 20 * DAY, ["DOD"])
    assert ends == {}
    comes = START + 30 * DAY
    await pass_time(entitlements, comes)
    await publish(entitlements, [FRONTIER, RESEARCH | {"trial_days": 60}])
    await eventually(lambda: rolled_out(entitlements, 3))
    assert await trial_ends(bureau, "enr_DOD-USAF_1") == {"deep-research": comes + 40 * DAY}
    listed = (await list_used_trials(entitlements.service.admin))["DOD-USAF"]  # as a plan counts it
    assert listed == dict.fromkeys(TRIALS, 20 * DAY)


async def test_a_used_up_trial_does_not_come_back_in_a_later_round_of_the_program(entitlements: Entitlements) -> None:
    """Neither in the agency's next enrollment nor in one that continues it; other agencies have the whole round."""
    department, _ = await enroll(entitlements, "DOD", START)
    await withdraw(department, "enr_DOD_1", START + 70 * DAY)
    again, round_at = START + 80 * DAY, START + 100 * DAY
    of_program = {"trial_days": 60, "anchor": "program", "anchor_at": round_at.isoformat()}
    await publish(entitlements, [RESEARCH | of_program], "new-agencies")
    for agency, continues, number, left in (
        ("DOD", (), 2, timedelta()),
        ("DOD-USAF", ("DOD",), 1, timedelta()),
        ("EPA", (), 1, TRIAL),
    ):
        _, ends = await enroll(entitlements, agency, again, continues, number)
        assert ends == {"deep-research": round_at + left}


async def test_an_agency_merged_from_two_has_what_is_left_to_the_one_that_used_more(
    entitlements: Entitlements,
) -> None:
    first, _ = await enroll(entitlements, "DOI", START)
    second, _ = await enroll(entitlements, "EPA", START + 30 * DAY)
    over = START + 40 * DAY
    await withdraw(first, "enr_DOI_1", over)
    await withdraw(second, "enr_EPA_1", over)
    merged, later = ["DOI", "EPA"], START + 100 * DAY
    joined, ends = await enroll(entitlements, "DOC", later, merged)
    assert ends == dict.fromkeys(TRIALS, later + 20 * DAY)

    # What it has used since counts, too; naming the same agencies again counts nothing twice.
    await withdraw(joined, "enr_DOC_1", later + 5 * DAY)
    again = later + 10 * DAY
    assert (await enroll(entitlements, "DOC", again, merged, 2))[1] == dict.fromkeys(TRIALS, again + 15 * DAY)


async def test_an_agency_that_takes_in_another_keeps_its_windows_and_so_do_people_who_move(
    entitlements: Entitlements,
) -> None:
    left, _ = await enroll(entitlements, "DOI", START)
    await left.assign("ada")
    taken_in = START + 50 * DAY
    joined, ends = await enroll(entitlements, "EPA", START + 40 * DAY)
    assert ends == dict.fromkeys(TRIALS, START + 100 * DAY)
    await withdraw(left, "enr_DOI_1", taken_in)
    assert (await left.check("ada"))["reason"] == "withdrawn"
    assert await trial_ends(joined, "enr_EPA_1") == ends
    await joined.assign("ada")
    await pass_time(entitlements, START + 99 * DAY)
    answer = await joined.check("ada")
    assert (answer["reason"], answer["valid_until"]) == ("window_open", "2025-11-14T00:00:00Z")
    await pass_time(entitlements, START + 100 * DAY)
    assert (await joined.check("ada"))["reason"] == "quota"


async def test_what_is_used_is_counted_by_the_clocks_of_the_agency_that_used_it(entitlements: Entitlements) -> None:
    starts_at = datetime(2026, 3, 1, 5, tzinfo=UTC)  # a midnight there; the trial has a day of 23 hours
    _, used = await enroll(entitlements, "DOD", starts_at, time_zone="America/New_York")
    assert used == dict.fromkeys(TRIALS, datetime(2026, 4, 30, 4, tzinfo=UTC))
    later = starts_at + 80 * DAY
    assert (await enroll(entitlements, "DOD-USAF", later, ["DOD"]))[1] == dict.fromkeys(TRIALS, later)


async def test_what_is_not_known_of_an_agency_counts_as_unused(entitlements: Entitlements) -> None:
    """Events of different agencies have no order: what is applied when the enrollment arrives decides, and stays."""
    bureau, ends = await enroll(entitlements, "DOD-USAF", START + 20 * DAY, ["DOD"])
    assert ends == dict.fromkeys(TRIALS, START + 80 * DAY)
    enrolled = replace(entitlements, agency="DOD").enrolled(5, "enr_DOD_1")
    await entitlements.service.publish(enrolled)
    await eventually(lambda: trial_ends(entitlements, "enr_DOD_1"))
    assert await trial_ends(bureau, "enr_DOD-USAF_1") == ends


@pytest.mark.parametrize("withdraws", [True, False], ids=["withdrawn", "taken over"])
async def test_what_a_term_that_never_began_continued_is_not_used(entitlements: Entitlements, withdraws: bool) -> None:
    """Its start was a mistake: by then, the department would have used up its trial."""
    await enroll(entitlements, "DOD", START)
    mistaken = START + 87 * DAY
    bureau, ends = await enroll(entitlements, "DOD-USAF", mistaken, ["DOD"], now=START + 4 * DAY)
    assert ends == dict.fromkeys(TRIALS, mistaken)  # nothing would be left
    correct = START + 14 * DAY
    if withdraws:
        await withdraw(bureau, "enr_DOD-USAF_1", correct)
    _, ends = await enroll(entitlements, "DOD-USAF", correct, ["DOD"], 2)
    assert ends == dict.fromkeys(TRIALS, START + TRIAL)
    assert (await list_used_trials(entitlements.service.admin))["DOD-USAF"] == dict.fromkeys(TRIALS, 14 * DAY)

    # What the term that did begin continued stays used.
    await withdraw(bureau, "enr_DOD-USAF_2", correct + 6 * DAY)
    again = START + 100 * DAY
    assert (await enroll(entitlements, "DOD-USAF", again, number=3))[1] == dict.fromkeys(TRIALS, again + 40 * DAY)


async def test_the_audit_trail_has_what_was_counted_and_which_agencies_were_unknown(entitlements: Entitlements) -> None:
    await enroll(entitlements, "DOD", START)
    with capture_logs() as logs:
        await enroll(entitlements, "DOD-USAF", START + 20 * DAY, ["DOD", "DOD-USN"])
    warned = [(each["log_level"], each["agency_id"]) for each in logs if each["event"] == "continued_agency_unknown"]
    assert warned == [("warning", "DOD-USN")]
    audited = "select agency_id, subject, after, request_id from audit where command = 'ContinueTrials'"
    [row] = await entitlements.service.admin.fetch(audited)
    assert (row["agency_id"], row["subject"], row["request_id"]) == ("DOD-USAF", "enr_DOD-USAF_1", None)
    assert json.loads(row["after"]) == {"unknown": ["DOD-USN"], "used_days": dict.fromkeys(TRIALS, 20)}


async def test_an_agency_reads_only_what_is_left_of_those_that_it_continues(entitlements: Entitlements) -> None:
    await enroll(entitlements, "DOD", START)
    await enroll(entitlements, "EPA", START)
    bureau, _ = await enroll(entitlements, "DOD-USAF", START + 20 * DAY, ["DOD"])
    await enroll(entitlements, "DOC", START + 20 * DAY, ["EPA"])
    assert (await bureau.assign("ada")).status_code == 201

    own = {"Authorization": f"Bearer {entitlements.service.token('entitlements:read', agency='DOD-USAF')}"}
    client = entitlements.service.client
    person = {"subject": "person.ada@nasa.gov", "feature": "deep-research"}
    for path, params in (("windows", {}), ("pool", {}), ("checks", person), ("checks/explanation", person)):
        shown = await client.get(f"/v1/agencies/DOD-USAF/{path}", params=params, headers=own)
        assert shown.status_code == 200, shown.text
        assert "enr_DOD_1" not in shown.text
        assert '"DOD"' not in shown.text
        assert (await client.get(f"/v1/agencies/DOD/{path}", params=params, headers=own)).status_code == 404

    # Nor would a query that forgot to name the agency see more.
    async with entitlements.service.process.app.state.database.read("DOD-USAF") as connection:
        rows = await connection.fetch("select distinct agency_id from continued_trial")
        assert [row["agency_id"] for row in rows] == ["DOD-USAF"]
        assert await find_used_trials(connection, "DOC", START + 20 * DAY, zone_of(None)) == {}

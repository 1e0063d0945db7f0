"""Decisions about windows: previewed, approved where a feature opens for longer, published, and audited."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from muster_contracts.entitlements import (
    FeatureAccessChanged,
    FeatureWindowChanged,
    FeatureWindowExtended,
    TrialEndingSoon,
    TrialExpired,
)
from muster_entitlements.domain.windows import Window
from muster_entitlements.repository.windows import list_windows, save_change, save_windows
from tests.integration.entitlements.conftest import END, START, Entitlements
from tests.integration.entitlements.lives import published
from tests.integration.entitlements.test_catalog import RESEARCH, publish, rolled_out
from tests.integration.entitlements.test_trials import enroll_again, pass_time, withdraw
from tests.support.eventually import eventually

DAY = timedelta(days=1)
TRIAL_END = START + 60 * DAY

CANVAS = {
    "key": "canvas",
    "name": "Canvas",
    "mode": "unlimited",
    "trial_days": 30,
    "mode_after": "none",
    "ends_soon_days": [10, 3],
    "grace_days": 5,
}
AGENTS = {
    "key": "agents",
    "name": "Agents",
    "mode": "unlimited",
    "mode_after": "none",
    "anchor": "program",
    "anchor_at": "2025-09-01T00:00:00Z",
    "trial_days": 20,
    "ends_soon_days": [],
}


async def windows(entitlements: Entitlements) -> dict[str, dict[str, Any]]:
    return {window["feature"]: window for window in (await entitlements.get("windows")).json()["items"]}


def decision(entitlements: Entitlements, path: str, feature: str, found: dict[str, dict[str, Any]]) -> str:
    return f"/v1/agencies/{entitlements.agency}/windows/{found[feature]['window_id']}/{path}"


async def send(entitlements: Entitlements, path: str, subject: str, **body: Any) -> httpx.Response:
    token = entitlements.service.token("entitlements:read", "entitlements:operate", subject=subject)
    headers = {"Authorization": f"Bearer {token}"}
    return await entitlements.service.client.post(path, json=body or None, headers=headers)


async def test_an_extension_is_previewed_proposed_and_approved(entitlements: Entitlements) -> None:
    await entitlements.service.publish(entitlements.enrolled(2).model_copy(update={"time_zone": "America/New_York"}))
    await eventually(lambda: windows(entitlements))
    await entitlements.assign("ada")
    before = await windows(entitlements)
    assert before["deep-research"]["ends_at"] == "2025-10-05T04:00:00Z"  # the end of October 4 there
    assert (await entitlements.pool())["time_zone"] == "America/New_York"
    await pass_time(entitlements, START + 50 * DAY)
    await published(entitlements, TrialEndingSoon, 2)  # those of 14 days are out

    extension = decision(entitlements, "extension", "deep-research", before)
    preview = await send(entitlements, f"{extension}/preview", "ann", ends_on="2025-11-03", reason="pilot")
    assert preview.status_code == 200, preview.text
    assert (preview.json()["seats"], preview.json()["window"]["ends_at"]) == (1, "2025-11-04T05:00:00Z")
    told = [(each["event"].split(".")[2], each["days_left"]) for each in preview.json()["messages"]]
    assert told == [
        ("FeatureWindowExtended", None),
        ("TrialEndingSoon", 14),
        ("TrialEndingSoon", 7),
        ("TrialEndingSoon", 1),
        ("TrialExpired", None),
    ]
    assert await windows(entitlements) == before

    for wrong in ("2025-10-04", "9999-12-31", "0001-01-01", 20_000):
        refused = await send(entitlements, extension, "ann", ends_on=wrong, reason="pilot")
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "ends_on")
    proposed = await send(entitlements, extension, "ann", ends_on="2025-11-03", reason="pilot")
    assert proposed.status_code == 202, proposed.text
    other = await send(entitlements, extension, "ann", ends_on="2025-11-04", reason="pilot")
    assert await windows(entitlements) == before
    approved = await send(entitlements, f"{proposed.headers['location']}/approval", "bob")
    assert (approved.status_code, approved.json()["ends_at"]) == (200, "2025-11-04T05:00:00Z"), approved.text
    outdated = await send(entitlements, f"{other.headers['location']}/approval", "bob")
    assert (outdated.status_code, outdated.json()["type"]) == (409, "urn:muster:problem:proposal-outdated")
    again = await send(entitlements, extension, "ann", ends_on="2025-11-10", reason="pilot")
    assert (again.status_code, again.json()["type"]) == (409, "urn:muster:problem:window-extended-already")

    [extended] = await published(entitlements, FeatureWindowExtended, 1)
    ends_at = datetime(2025, 11, 4, 5, tzinfo=UTC)
    assert (extended.data.feature, extended.data.ends_at) == ("deep-research", ends_at)
    await pass_time(entitlements, ends_at)
    ends = await published(entitlements, TrialExpired, 2)
    assert {event.data.feature: event.envelope.time for event in ends} == {
        "advanced-voice-mode": datetime(2025, 10, 5, 4, tzinfo=UTC),
        "deep-research": ends_at,
    }
    notices = await entitlements.service.published(TrialEndingSoon)
    assert sorted(
        (event.data.days_left, event.envelope.time) for event in notices if event.data.feature == "deep-research"
    ) == sorted([(14, datetime(2025, 9, 21, 4, tzinfo=UTC)), *((days, ends_at - days * DAY) for days in (14, 7, 1))])
    audited = await entitlements.service.admin.fetchrow(
        "select actor, reason from audit where command = 'ExtendWindow'"
    )
    assert audited is not None
    assert (audited["actor"], audited["reason"]) == ("ann, approved by bob", "pilot")


async def test_a_trial_ends_early_and_another_starts_later(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=2)
    before = await windows(entitlements)
    entitlements.service.clock.move(START + 10 * DAY)
    await entitlements.assign("ada")
    revision = (await entitlements.pool())["revision"]
    ended = await send(entitlements, decision(entitlements, "end", "deep-research", before), "ann", reason="misuse")
    assert (ended.status_code, ended.json()["ends_at"]) == (200, "2025-08-16T00:00:00Z"), ended.text
    assert (await entitlements.pool())["revision"] > revision
    assert (await entitlements.check("ada"))["reason"] == "quota"
    [expired] = await published(entitlements, TrialExpired, 1)
    assert expired.envelope.time == START + 10 * DAY
    over = await send(entitlements, decision(entitlements, "end", "deep-research", before), "ann", reason="misuse")
    assert (over.status_code, over.json()["type"]) == (409, "urn:muster:problem:window-over")

    start = decision(entitlements, "start", "advanced-voice-mode", before)
    present, revision = await windows(entitlements), (await entitlements.pool())["revision"]
    preview = await send(entitlements, f"{start}/preview", "ann", starts_on="2025-08-20", reason="wrong date")
    assert preview.status_code == 200, preview.text
    previewed = preview.json()
    assert (previewed["seats"], previewed["previous_starts_at"]) == (1, "2025-08-06T00:00:00Z")
    assert (await windows(entitlements), (await entitlements.pool())["revision"]) == (present, revision)
    proposed = await send(entitlements, start, "ann", starts_on="2025-08-20", reason="wrong date")
    assert proposed.status_code == 202, proposed.text
    approved = await send(entitlements, f"{proposed.headers['location']}/approval", "bob")
    assert approved.json()["starts_at"] == "2025-08-20T00:00:00Z", approved.text
    assert previewed["window"] == approved.json()
    due = await entitlements.service.admin.fetch(
        "select due_at from deadline where starts_with(subject, $1) order by due_at", approved.json()["window_id"]
    )
    told = [(each["event"].split(".")[2], datetime.fromisoformat(each["at"])) for each in previewed["messages"]]
    assert told == [
        ("FeatureWindowChanged", START + 10 * DAY),
        *(("TrialEndingSoon", row["due_at"]) for row in due[:-1]),
        ("TrialExpired", due[-1]["due_at"]),
    ]
    assert (await entitlements.check("ada", "advanced-voice-mode"))["valid_until"] == "2025-08-20T00:00:00Z"
    changes = await published(entitlements, FeatureWindowChanged, 2)
    assert [(event.data.starts_at, event.data.ends_at) for event in changes] == [
        (START, START + 10 * DAY),
        (START + 14 * DAY, TRIAL_END + 14 * DAY),
    ]
    term_long = decision(entitlements, "end", "frontier-models", before)
    refused = await send(entitlements, term_long, "ann", reason="none")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:muster:problem:window-without-trial")
    unknown = f"/v1/agencies/NASA/windows/win_{'0' * 32}/end"
    assert (await send(entitlements, unknown, "ann", reason="none")).status_code == 404


async def test_notices_and_grace_are_as_the_catalog_says(entitlements: Entitlements) -> None:
    await publish(entitlements, [CANVAS, AGENTS], "new-agencies")
    await entitlements.enroll(cap=1)
    await entitlements.assign("ada")
    assert (await entitlements.check("ada", "agents"))["reason"] == "window_closed"
    end = START + 30 * DAY
    await pass_time(entitlements, end)
    notices = await published(entitlements, TrialEndingSoon, 2)
    assert [(event.data.days_left, event.envelope.time) for event in notices] == [
        (10, end - 10 * DAY),
        (3, end - 3 * DAY),
    ]
    [expired] = await published(entitlements, TrialExpired, 1)
    assert (expired.data.mode_after, expired.data.grace_ends_at) == ("none", end + 5 * DAY)
    assert (await entitlements.check("ada", "canvas"))["reason"] == "window_open"
    assert (await entitlements.check("ada", "agents"))["reason"] == "window_open"
    await pass_time(entitlements, end + 5 * DAY)
    [changed] = await published(entitlements, FeatureAccessChanged, 1)
    assert (changed.envelope.time, changed.data.previous_mode, changed.data.mode) == (
        end + 5 * DAY,
        "unlimited",
        "none",
    )
    assert (await entitlements.check("ada", "canvas"))["reason"] == "window_closed"
    await pass_time(entitlements, END - DAY)
    ends = await published(entitlements, TrialExpired, 2)
    assert {event.data.feature: event.envelope.time for event in ends}["agents"] == datetime(2025, 9, 21, tzinfo=UTC)


async def test_an_agency_that_leaves_in_a_grace_is_not_told_of_its_end(entitlements: Entitlements) -> None:
    await publish(entitlements, [CANVAS], "new-agencies")
    await entitlements.enroll(cap=1)
    await withdraw(entitlements, "enr_1", START + 31 * DAY)
    assert await entitlements.service.admin.fetchval("select count(*) from deadline") == 0
    assert len(await published(entitlements, TrialExpired, 1)) == 1


@pytest.mark.parametrize("days", [0, 10], ids=["a window that is open", "one that is replaced"])
async def test_an_approval_is_outdated_once_a_version_has_changed_the_window(
    entitlements: Entitlements, days: int
) -> None:
    enrolled = entitlements.enrolled(1).model_copy(update={"starts_at": START + days * DAY})
    await entitlements.service.publish(enrolled)
    await eventually(lambda: windows(entitlements))
    extension = decision(entitlements, "extension", "deep-research", await windows(entitlements))
    proposed = await send(entitlements, extension, "ann", ends_on="2025-11-03", reason="pilot")
    assert proposed.status_code == 202, proposed.text
    await publish(entitlements, [RESEARCH | {"trial_days": 60}])  # with another quota
    await eventually(lambda: rolled_out(entitlements, 2))
    outdated = await send(entitlements, f"{proposed.headers['location']}/approval", "bob")
    assert (outdated.status_code, outdated.json()["type"]) == (409, "urn:muster:problem:proposal-outdated")


async def test_no_trial_of_an_agency_that_has_left_is_changed(entitlements: Entitlements) -> None:
    later = START + 30 * DAY
    await enroll_again(entitlements, 1, later)
    await withdraw(entitlements, "enr_1", START + 5 * DAY)
    extension = decision(entitlements, "extension", "deep-research", await windows(entitlements))
    for path in (extension, f"{extension}/preview"):
        refused = await send(entitlements, path, "ann", ends_on="2025-11-03", reason="pilot")
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:muster:problem:window-over")


@pytest.mark.parametrize(
    ("change", "outdated"),
    [
        ({"trial_days": 31}, True),
        ({"grace_days": 6}, True),
        ({"mode_after": "quota", "quota": {"limit": 9, "per": "agency"}}, True),
        ({"ends_soon_days": [5], "name": "Canvases"}, False),
    ],
)
async def test_an_approval_is_outdated_by_a_version_that_changes_the_windows_end_or_access_alone(
    entitlements: Entitlements, change: dict[str, Any], outdated: bool
) -> None:
    await publish(entitlements, [CANVAS], "new-agencies")
    await entitlements.enroll(cap=1)
    extension = decision(entitlements, "extension", "canvas", await windows(entitlements))
    proposed = await send(entitlements, extension, "ann", ends_on="2025-11-03", reason="pilot")
    await publish(entitlements, [CANVAS | change])
    await eventually(lambda: rolled_out(entitlements, 3))
    approved = await send(entitlements, f"{proposed.headers['location']}/approval", "bob")
    assert approved.status_code == (409 if outdated else 200), approved.text


async def test_an_approval_is_outdated_by_a_version_that_changes_the_trials_access_alone(
    entitlements: Entitlements,
) -> None:
    metered = CANVAS | {"mode": "quota", "quota": {"limit": 9, "per": "agency"}}
    await publish(entitlements, [metered], "new-agencies")
    await entitlements.enroll(cap=1)
    extension = decision(entitlements, "extension", "canvas", await windows(entitlements))
    proposed = await send(entitlements, extension, "ann", ends_on="2025-11-03", reason="pilot")
    await publish(entitlements, [CANVAS])
    await eventually(lambda: rolled_out(entitlements, 3))
    outdated = await send(entitlements, f"{proposed.headers['location']}/approval", "bob")
    assert (outdated.status_code, outdated.json()["type"]) == (409, "urn:muster:problem:proposal-outdated")


async def test_a_window_keeps_its_decisions_and_one_that_replaces_it_has_none(front: Entitlements) -> None:
    """How long the trials that were replaced had been open adds up."""
    await front.enroll(cap=1)
    admin = front.service.admin
    decided: dict[str, Any] = {"extended": True, "ended_early": True, "start_corrected": True}

    async def stored() -> Window:
        return (await list_windows(admin, "NASA", "enr_1"))["deep-research"]

    window = await stored()
    for days in (1, 2):
        await save_change(admin, replace(window, revision=7, **decided))
        await save_windows(admin, [window])
        assert await stored() == replace(window, revision=7, **decided)
        window = replace(window, window_id=f"win_{days}")
        await save_windows(admin, [window], {"deep-research": days * DAY})
        assert await stored() == window
    spent = "select trial_before from feature_window where feature = 'deep-research'"
    assert await admin.fetchval(spent) == 3 * DAY

"""`muster windows`, `proposals`, and `grants`: what one person proposes, another one decides."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import Result

from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_trials import withdraw
from tests.integration.entitlements.test_windows import windows
from tests.support.eventually import eventually
from tests.support.muster_commands import muster, quiet_services, served

EXTENSION = ("windows", "extend", "NASA", "deep-research", "--ends-on", "2025-11-03", "--reason", "the pilot continues")


def said(result: Result, status: int = 0) -> str:
    """What a command printed; a failure is one line."""
    assert result.exit_code == status, result.output
    if status:
        assert (result.stdout, len(result.stderr.splitlines())) == ("", 1), result.output
        return result.stderr
    return result.stdout


def data(result: Result) -> Any:
    return json.loads(said(result))


async def test_an_extension_is_previewed_proposed_approved_and_shown(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    await entitlements.enroll(cap=3)
    await entitlements.assign("ada")
    ann, bob = (
        entitlements.service.token("entitlements:read", "entitlements:operate", subject=subject)
        for subject in ("ann", "bob")
    )
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("MUSTER_TOKEN", ann)
    with quiet_services():
        async with served(entitlements.service) as url:
            monkeypatch.setenv("MUSTER_ENTITLEMENTS_URL", url)
            await _extend(bob)
            await _end_and_correct(bob)
            await _grant()
            await _leave(entitlements)
            await _grant_while_withdrawn()
            await _grant_before_the_term(entitlements)


async def _extend(bob: str) -> None:
    previewed = said(await muster(*EXTENSION, "--preview"))
    assert "seats in use: 1" in previewed
    assert "2025-11-04T00:00:00Z" in previewed
    assert previewed.count("TrialEndingSoon") == 3
    assert "No proposal is pending." in said(await muster("proposals", "list"))
    waits = said(await muster(*EXTENSION))
    (pending,) = data(await muster("proposals", "list", "--json"))["items"]
    again = data(await muster(*EXTENSION, "--json"))["proposal_id"]
    assert _outdated(said(await muster("proposals", "list"))) == ["no", "no"]
    assert f"muster proposals approve {pending['proposal_id']} --service entitlements" in waits
    assert (pending["service"], pending["proposed_by"]) == ("entitlements", "ann")
    shown = data(await muster("proposals", "show", pending["proposal_id"], "--json"))
    assert shown["body"] == {"reason": "the pilot continues", "ends_on": "2025-11-03"}
    assert "the pilot continues" in said(await muster("proposals", "show", pending["proposal_id"]))
    assert "ann made proposal" in said(await muster("proposals", "approve", pending["proposal_id"]), 4)
    approve = ("proposals", "approve", pending["proposal_id"], "--token", bob)
    assert "/extension" in said(await muster(*approve))
    assert data(await muster(*approve, "--json"))["ends_at"] == "2025-11-04T00:00:00Z"  # again: the same answer
    assert _outdated(said(await muster("proposals", "list"))) == ["yes"]
    assert "outdated True" in " ".join(said(await muster("proposals", "show", again)).split())
    assert "is rejected" in said(await muster("proposals", "reject", again, "--reason", "it was approved before"))
    (approved,) = data(await muster("proposals", "list", "--state", "approved", "--json"))["items"]
    assert (approved["decided_by"], approved["proposal_id"]) == ("bob", pending["proposal_id"])
    row = next(line for line in said(await muster("windows", "show", "NASA")).splitlines() if "deep-research" in line)
    before, after = row.split("2025-11-04T00:00:00Z")
    assert " ".join(before.split()) == "deep-research unlimited unlimited for the extended trial 2025-08-06T00:00:00Z"
    assert " ".join(after.split()) == "25 a month per seat"
    assert "already" in said(await muster(*EXTENSION), 4)
    for refused in ("show", "approve"):
        assert "there is no proposal prp_0" in said(await muster("proposals", refused, "prp_0"), 3)


def _outdated(listed: str) -> list[str]:
    return [line.split()[-1] for line in listed.splitlines()[1:]]


async def _end_and_correct(bob: str) -> None:
    correct = ("windows", "correct", "NASA", "advanced-voice-mode", "--reason", "the contract says so")
    assert "either --starts-on or --starts-at" in said(await muster(*correct), 2)
    both = ("--starts-on", "2025-08-20", "--starts-at", "2025-08-20T00:00:00Z")
    assert "pass --starts-on or --starts-at, not both" in said(await muster(*correct, *both), 2)
    assert "starts_on" in said(await muster(*correct, "--starts-on", "August"), 2)
    previewed = data(await muster(*correct, "--starts-on", "2025-08-20", "--preview", "--json"))
    starts = previewed["previous_starts_at"], previewed["window"]["starts_at"]
    assert starts == ("2025-08-06T00:00:00Z", "2025-08-20T00:00:00Z")
    assert "No proposal is pending." in said(await muster("proposals", "list"))
    proposal = data(await muster(*correct, "--starts-on", "2025-08-20", "--json"))
    reject = ("proposals", "reject", proposal["proposal_id"], "--reason", "it does not")
    assert "is rejected" in said(await muster(*reject))
    assert data(await muster(*reject, "--json"))["state"] == "rejected"
    assert "rejected; only a pending one" in said(
        await muster("proposals", "approve", proposal["proposal_id"], "--token", bob), 4
    )

    end = ("windows", "end", "NASA", "advanced-voice-mode", "--reason", "the agency asked for it")
    previewed = data(await muster(*end, "--ends-at", "2025-09-01T00:00:00Z", "--preview", "--json"))
    assert previewed["window"]["ends_at"] == "2025-09-01T00:00:00Z"
    assert data(await muster(*end, "--json"))["ends_at"] == "2025-08-06T00:00:00Z"  # now
    over = next(line for line in said(await muster("windows", "show", "NASA")).splitlines() if "voice" in line)
    assert " ".join(over.split()[1:10]) == "60 a month per seat unlimited for the trial"
    unknown = said(await muster("windows", "end", "NASA", "telepathy", "--reason", "none"), 3)
    assert "it has advanced-voice-mode, deep-research, frontier-models" in unknown
    assert "NOBODY has no seat pool because it has never been enrolled" in said(
        await muster("windows", "show", "NOBODY"), 3
    )
    for decision in (end, (*reject[:3], "--reason", "x"), ("grants", "add", "NASA", "deep-research", "--reason", "x")):
        asked = decision[:-1]
        assert "reason: 'x' is invalid: must have at least 3 characters" in said(await muster(*asked, "x"), 2)
        assert "must not contain @" in said(await muster(*asked, "for ada@nasa.gov"), 2)


async def _grant() -> None:
    grant = ("grants", "add", "NASA", "deep-research", "--reason", "pilot")
    added = data(await muster(*grant, "--subject", "person.ada@nasa.gov", "--json"))
    assert (added["mode"], added["state"]) == ("unlimited", "active")
    assert "has no feature 'telepathy'" in said(
        await muster("grants", "add", "NASA", "telepathy", "--reason", "pilot"), 3
    )
    assert added["grant_id"] in said(await muster("grants", "list", "NASA"))
    assert "revoked" in said(await muster("grants", "revoke", "NASA", added["grant_id"], "--reason", "pilot is over"))
    (listed,) = data(await muster("grants", "list", "NASA", "--json"))["items"]
    assert listed["state"] == "revoked"
    assert "has no grants" in said(await muster("grants", "list", "EPA"))
    said(await muster(*grant, "--mode", "quota"))
    shown = said(await muster("grants", "list", "NASA"))
    assert ("25 a month per seat" in shown, "not open" in shown) == (True, False)


async def _leave(entitlements: Entitlements) -> None:
    await withdraw(entitlements, "enr_1", START + timedelta(days=1))
    rows = said(await muster("windows", "show", "NASA")).splitlines()[1:]
    assert [row.partition("none (withdrawn)")[1] for row in rows] == ["none (withdrawn)"] * 3, rows


async def _grant_while_withdrawn() -> None:
    closed = "The seat pool is not open (withdrawn): until it is, no grant has an effect."
    assert closed in said(await muster("grants", "list", "NASA"))
    listed = data(await muster("grants", "list", "NASA", "--json"))["items"]
    grants = {each["state"]: each["grant_id"] for each in listed}
    said(await muster("grants", "revoke", "NASA", grants["active"], "--reason", "the agency left"))
    assert closed not in said(await muster("grants", "list", "NASA"))


async def _grant_before_the_term(entitlements: Entitlements) -> None:
    other = replace(entitlements, agency="NSF")
    later = other.enrolled(1).model_copy(update={"starts_at": START + timedelta(days=30)})
    await entitlements.service.publish(later)
    await eventually(lambda: windows(other))
    said(await muster("grants", "add", "NSF", "deep-research", "--reason", "pilot"))
    assert "not open (not started)" in said(await muster("grants", "list", "NSF"))

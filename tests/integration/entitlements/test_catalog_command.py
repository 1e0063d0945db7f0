"""`muster catalog`: a file is planned, applied once, and refused with its fault in one line."""

import json
from pathlib import Path

import pytest

from muster_entitlements.domain import catalog
from tests.integration.entitlements.conftest import Entitlements
from tests.integration.entitlements.test_catalog import rolled_out
from tests.integration.entitlements.test_usage import LATER
from tests.support.eventually import eventually
from tests.support.muster_commands import muster, quiet_services, served

PACKAGED = Path(catalog.__file__).with_name("features.toml")


async def test_a_file_is_planned_and_applied_and_the_same_again_changes_nothing(
    entitlements: Entitlements, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await entitlements.enroll(cap=7)
    await entitlements.assign("ada")
    text = PACKAGED.read_text("utf-8").replace("monthly_quota_after = 25", "monthly_quota_after = 10")
    file = tmp_path / "features.toml"
    file.write_text(f"""{text}
[notes]
name = 'Notes [beta], "unlimited"'
mode = "quota"
mode_after = "none"
value = "a\\\\b"
ends_soon_days = []

[notes.quota]
limit = 3
per = "agency"
hard = false

[pilot]
name = "Pilot"
mode = "unlimited"
mode_after = "none"
anchor = "program"
anchor_at = 2025-09-01T00:00:00Z
""")
    token = entitlements.service.token("entitlements:read", "entitlements:operate")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("MUSTER_TOKEN", token)
    with quiet_services():
        async with served(entitlements.service) as url:
            monkeypatch.setenv("MUSTER_ENTITLEMENTS_URL", url)
            planned = await muster("catalog", "plan", str(file), "--rule", "now")
            assert planned.exit_code == 0, planned.output
            without = await muster("catalog", "draft")
            assert (without.exit_code, "muster catalog apply" in without.stderr) == (3, True), without.stderr
            lines = {line.split()[0]: line for line in planned.stdout.splitlines() if line}
            assert "monthly_quota_after" in lines["deep-research"]
            assert lines["deep-research"].rstrip().endswith("1 agency, 1 seat"), planned.stdout
            assert "frontier-models" not in lines
            assert lines["pilot"].split()[1] == "new"

            applied = await muster("catalog", "apply", str(file), "--rule", "now")
            assert (applied.exit_code, "waits until 2025-08-20T00:00:00Z" in applied.stdout) == (0, True), (
                applied.output
            )
            drafted = await muster("catalog", "draft")
            assert ("Version 2" in drafted.stdout, "monthly_quota_after" in drafted.stdout) == (True, True)
            assert json.loads((await muster("catalog", "show", "--json")).stdout)["number"] == 1
            command = applied.stdout.partition("muster proposals approve")[2].split()
            approver = entitlements.service.token("entitlements:read", "entitlements:operate", subject="bob")
            approved = await muster("proposals", "approve", *command, "--token", approver, "--json")
            assert (json.loads(approved.stdout)["number"], approved.exit_code) == (2, 0), approved.output
            again = await muster("catalog", "apply", str(file), "--rule", "now")
            assert "Version 2 is the same" in again.stdout
            listed = [" ".join(line.split()) for line in (await muster("catalog", "show")).stdout.splitlines()]
            assert "deep-research unlimited 60 days - 10 a month per seat" in listed
            assert "notes 3 a month per agency, soft the term - none" in listed
            shown = json.loads((await muster("catalog", "show", "--json")).stdout)
            assert [each["key"] for each in shown["features"]][-1] == "pilot"
            file.write_text((await muster("catalog", "show", "--toml")).stdout)
            whole = file.read_text()
            file.write_text(whole.replace("[frontier-models]", "[frontier]"))
            renamed = await muster("catalog", "plan", str(file), "--rule", "now")
            removed = next(line for line in renamed.stdout.splitlines() if line.startswith("frontier-models"))
            assert removed.rstrip().endswith("who has it, at the end of the term"), renamed.stdout
            file.write_text(whole)
            same = await muster("catalog", "plan", str(file), "--rule", "now")
            assert (same.exit_code, "It is the same as the current version" in same.stdout) == (0, True), same.output

            file.write_text("[pilot]\nname = 'Pilot'\nmode = 'unlimited'\nmode_after = 'quota'\n")
            refused = await muster("catalog", "plan", str(file), "--rule", "now")
            assert (refused.exit_code, len(refused.stderr.splitlines())) == (2, 1)
            assert ": pilot: quota or monthly_quota_after is required" in refused.stderr
            file.write_text("[pilot]\nname = 'Pilot'\nmode = 'unlimited'\nmode_after = 'none'\ntrial_days = -1\n")
            negative = await muster("catalog", "plan", str(file), "--rule", "now")
            assert (negative.exit_code, "pilot.trial_days: -1 is invalid" in negative.stderr) == (2, True), negative
            file.write_text("[pilot]\nname = 'Pilot'\nmode = 'unlimited'\nmode_after = 'none'\nvalue = 1.5\n")
            static = await muster("catalog", "plan", str(file), "--rule", "now")
            assert "pilot.value: 1.5 is invalid: must be a whole number or text" in static.stderr
            file.write_text("".join(f"[{key}]\nname = 'Pilot'\nmode = 'many'\n" for key in ("pilot", "trial")))
            none = await muster("catalog", "plan", str(file), "--rule", "now")
            assert ("pilot.mode" in none.stderr, "trial.mode" in none.stderr) == (True, True), none.stderr
            assert "features" not in none.stderr
            for broken, named in (("rule = 'now'\n", "rule = 'now'"), ("[pilot\n", "is not TOML")):
                file.write_text(broken)
                bad = await muster("catalog", "apply", str(file), "--rule", "now")
                assert (bad.exit_code, named in bad.stderr, len(bad.stderr.splitlines())) == (2, True, 1), bad.stderr


async def test_who_would_be_above_a_quota_is_shown_and_lowering_it_is_stated(
    entitlements: Entitlements, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await entitlements.enroll(cap=2)
    await entitlements.assign("ada")
    entitlements.service.clock.move(LATER)
    use = {"subject": "person.ada@nasa.gov", "feature": "deep-research", "amount": 20}
    assert (await entitlements.post("usage/consume", use)).status_code == 200
    file = tmp_path / "features.toml"
    file.write_text(PACKAGED.read_text("utf-8").replace("monthly_quota_after = 25", "monthly_quota_after = 10"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("MUSTER_TOKEN", entitlements.service.token("entitlements:read", "entitlements:operate"))
    above = "deep-research: 1 person of 1 agency used up to 20 in this period"
    with quiet_services():
        async with served(entitlements.service) as url:
            monkeypatch.setenv("MUSTER_ENTITLEMENTS_URL", url)
            planned = await muster("catalog", "plan", str(file), "--rule", "now")
            assert (planned.exit_code, above in planned.stdout) == (0, True), planned.output
            refused = await muster("catalog", "apply", str(file), "--rule", "now")
            assert (refused.exit_code, above in refused.stderr, len(refused.stderr.splitlines())) == (2, True, 1)
            assert "--allow-below-use" in refused.stderr
            assert (await muster("catalog", "draft")).exit_code == 3  # nothing is half done
            next_term = await muster("catalog", "plan", str(file), "--rule", "next-term")
            assert (next_term.exit_code, above in next_term.stdout) == (0, False), next_term.output
            applied = await muster("catalog", "apply", str(file), "--rule", "now", "--allow-below-use")
            assert applied.exit_code == 0, applied.output
            command = applied.stdout.partition("muster proposals approve")[2].split()
            shown = await muster("proposals", "show", *command)
            assert '"allow_below_use": true' in shown.stdout, shown.output
            assert above in (await muster("catalog", "draft")).stdout
            approver = entitlements.service.token("entitlements:read", "entitlements:operate", subject="bob")
            approved = await muster("proposals", "approve", *command, "--token", approver)
            assert approved.exit_code == 0, approved.output

            own = ["deep-research", "--mode", "quota", "--subject", "person.ada@nasa.gov", "--reason", "pilot"]
            narrow = await muster("grants", "add", "NASA", *own)
            assert narrow.stderr.endswith("or pass --allow-below-use\n"), narrow.stderr
            assert (narrow.exit_code, "mode: 'quota' is invalid" in narrow.stderr) == (2, True), narrow.output
            granted = await muster("grants", "add", "NASA", *own, "--allow-below-use")
            assert granted.exit_code == 0, granted.output


@pytest.mark.parametrize(
    ("rule", "field"),
    [("next-term", "ends_soon_days = [1]"), ("next-term", "grace_days = 5"), ("new-agencies", "ends_soon_days = [1]")],
    ids=["without an effect on access", "with one", "for new agencies"],
)
async def test_a_version_is_brought_forward(
    entitlements: Entitlements, rule: str, field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await entitlements.enroll(cap=1)
    file = tmp_path / "features.toml"
    file.write_text(PACKAGED.read_text("utf-8").replace("trial_days = 60", f"trial_days = 60\n{field}"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("MUSTER_TOKEN", entitlements.service.token("entitlements:read", "entitlements:operate"))

    async def publish(rule: str) -> int:
        applied = await muster("catalog", "apply", str(file), "--rule", rule)
        assert (applied.exit_code, "muster proposals approve" in applied.stdout) == (0, True), applied.output
        command = applied.stdout.partition("muster proposals approve")[2].split()
        approver = entitlements.service.token("entitlements:read", "entitlements:operate", subject="bob")
        approved = await muster("proposals", "approve", *command, "--token", approver, "--json")
        return int(json.loads(approved.stdout)["number"])

    with quiet_services():
        async with served(entitlements.service) as url:
            monkeypatch.setenv("MUSTER_ENTITLEMENTS_URL", url)
            assert await publish(rule) == 2
            for same in (rule, "new-agencies"):
                again = await muster("catalog", "apply", str(file), "--rule", same)
                assert (again.exit_code, "Version 2 is the same" in again.stdout) == (0, True), again.output
            assert await publish("now") == 3
            for same in ("now", "next-term"):
                again = await muster("catalog", "apply", str(file), "--rule", same)
                assert (again.exit_code, "Version 3 is the same" in again.stdout) == (0, True), again.output
            await eventually(lambda: rolled_out(entitlements, 3))

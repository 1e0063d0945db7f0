"""`muster agency`: what it prints for an agency that has nothing yet, and for input that the service rejects."""

import pytest

from tests.integration.enrollment.program import REGISTER, START, Program
from tests.support.muster_commands import muster, quiet_services, served


async def test_what_cannot_be_done_is_reported_in_the_operators_words(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("MUSTER_TOKEN", program.service.token("enrollment:read", "enrollment:write"))
    enroll = ("enroll", "NASA", "--seats", "5", "--contact-name", "Ada", "--contact-email", "ada@nasa.gov")
    with quiet_services():
        async with served(program.service) as url:
            monkeypatch.setenv("MUSTER_ENROLLMENT_URL", url)
            withdrawn = await muster("agency", "withdraw", "DOE", "--reason", "moved")
            late = await muster("agency", *enroll, "--starts-at", "yesterday")
            unknown = await muster("agency", "show", "nasa")
            await program.import_register(REGISTER)
            zoned = await muster("agency", *enroll, "--starts-at", START.isoformat(), "--time-zone", "America/New_York")
            shown = await muster("agency", "show", "NASA")
    assert (withdrawn.exit_code, withdrawn.stderr) == (3, "muster: DOE has no enrollment to withdraw\n")
    assert (late.exit_code, "'yesterday' is invalid" in late.stderr) == (2, True), late.stderr
    assert (unknown.exit_code, "'nasa' is invalid" in unknown.stderr) == (2, True), unknown.stderr
    assert zoned.exit_code == 0, zoned.output
    assert "America/New_York" in shown.stdout

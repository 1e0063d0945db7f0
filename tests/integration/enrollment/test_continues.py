"""An enrollment that names the agencies that it continues: what is published, and who may name which."""

from typing import Any

import pytest

from muster_contracts.enrollment import AgencyEnrolled
from tests.integration.enrollment.program import Program, acceptance, authorization, enrollment, problem
from tests.support.muster_commands import muster, quiet_services, served

RULE = "must be an agency of the register that your token acts for, and not NIH itself"


async def test_the_agencies_that_it_continues_are_published_with_the_enrollment(program: Program) -> None:
    submitted = await program.post("NIH", "enrollments", enrollment(continues=["HHS", "NSF"]))
    assert (submitted.status_code, submitted.json()["continues"]) == (201, ["HHS", "NSF"]), submitted.text
    await program.post("NIH", "authorizations", authorization())
    await program.post("NIH", "data-use-acceptances", acceptance())
    await program.activate("DOE")
    assert (await program.get("agencies/NIH/enrollment")).json()["continues"] == ["HHS", "NSF"]
    await program.facts("NIH")
    enrolled = await program.service.published(AgencyEnrolled)
    assert {each.data.agency_id: each.data.continues for each in enrolled} == {"NIH": ["HHS", "NSF"], "DOE": []}
    audited = "select after -> 'continues' from audit where command = 'SubmitEnrollment' and agency_id = 'NIH'"
    assert await program.service.admin.fetchval(audited) == '["HHS", "NSF"]'


async def refused(program: Program, continues: list[str], **headers: str) -> dict[str, Any]:
    """The error that a submission with these gets; nothing is submitted."""
    response = await program.post("NIH", "enrollments", enrollment(continues=continues), **headers)
    [error] = problem(response, 422)["errors"]
    assert await program.state("NIH") == "draft"
    return dict(error)


async def test_an_agency_that_cannot_be_continued_is_named(program: Program) -> None:
    for continues, place in ((["NOAA"], 0), (["HHS", "NOAA"], 1), (["NIH"], 0)):
        error = await refused(program, continues)
        assert error == {"field": f"continues.{place}", "value": continues[place], "rule": RULE}
    assert (await refused(program, ["not an id"]))["field"] == "continues.0"
    assert (await refused(program, ["HHS"] * 11))["field"] == "continues"


async def test_an_agencys_token_continues_its_own_agencies_only(program: Program) -> None:
    """The rest would reveal what another agency has used. Nor does the refusal reveal whether that agency exists."""

    def bearer(*agencies: str) -> dict[str, str]:
        token = program.service.token("enrollment:read", "enrollment:write", agency=agencies)
        return {"Authorization": f"Bearer {token}"}

    for other in ("HHS", "NOAA"):
        error = await refused(program, [other], **bearer("NIH"))
        assert error == {"field": "continues.0", "value": other, "rule": RULE}
    submitted = await program.post("NIH", "enrollments", enrollment(continues=["HHS"]), **bearer("NIH", "HHS"))
    assert submitted.status_code == 201, submitted.text


async def test_the_command_names_them(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_TOKEN", program.service.token("enrollment:read", "enrollment:write"))
    enroll = ("enroll", "NIH", "--seats", "5", "--contact-name", "Ada", "--contact-email", "ada@nih.gov")
    with quiet_services():
        async with served(program.service) as url:
            monkeypatch.setenv("MUSTER_ENROLLMENT_URL", url)
            starts = ("--starts-at", "2025-08-06T00:00:00Z")
            done = await muster("agency", *enroll, *starts, "--continues", "HHS", "--continues", "NSF")
    assert done.exit_code == 0, done.stderr
    assert (await program.get("agencies/NIH/enrollment")).json()["continues"] == ["HHS", "NSF"]

"""The import of the register: all or nothing."""

import asyncio

from muster_enrollment.commands import SubmitEnrollment
from muster_enrollment.domain.facts import Person
from muster_enrollment.handlers.enrollments import submit_enrollment
from muster_runtime.context import Context
from tests.integration.enrollment.program import REGISTER, START, Program, enrollment, problem
from tests.support.eventually import eventually

HEADER = REGISTER.partition("\n")[0]


async def listed(program: Program) -> dict[str, str]:
    """The register as the service shows it: names by id."""
    items = (await program.get("agencies?limit=200")).json()["items"]
    return {item["id"]: item["name"] for item in items}


async def test_an_import_inserts_and_a_second_one_changes_nothing(empty: Program) -> None:
    first = await empty.import_register(REGISTER)
    assert (first.status_code, first.json()) == (200, {"imported": 7, "unchanged": 0})
    second = await empty.import_register(REGISTER)
    assert second.json() == {"imported": 0, "unchanged": 7}
    assert (await empty.get("agencies/NIH")).json() == {
        "id": "NIH",
        "name": "National Institutes of Health",
        "parent": "HHS",
        "treasury_code": "075",
        "domains": ["nih.gov"],
        "headcount": 21299,
        "branch": "executive",
    }


async def test_a_later_file_with_tabs_and_only_some_agencies(program: Program) -> None:
    rows = [HEADER, "NIH,NIH renamed,HHS,,nih.gov;nih.mil,,executive", REGISTER.splitlines()[1]]
    content = "\n".join(rows).replace(",", "\t")
    changed = await program.import_register(content, "text/tab-separated-values; charset=utf-8")
    assert changed.json() == {"imported": 1, "unchanged": 1}
    assert (await program.get("agencies/NIH")).json()["domains"] == ["nih.gov", "nih.mil"]
    assert len(await listed(program)) == 7


async def test_one_bad_row_refuses_all_and_each_is_reported(program: Program) -> None:
    before = await listed(program)
    rows = [HEADER, "EPA,Environment,,068,epa.gov,1,executive", "FCC,,,,fcc.com,-1,executive", "SEC,Securities,XX,,,1,"]
    refused = problem(await program.import_register("\n".join(rows)), 422)
    assert refused["type"].endswith("register-refused")
    assert [(error["line"], error["field"]) for error in refused["errors"]] == [
        (3, "name"),
        (3, "domains"),
        (3, "headcount"),
        (4, "branch"),
    ]
    assert await listed(program) == before


async def test_parents_and_domains_are_checked_against_the_register(program: Program) -> None:
    before = await listed(program)
    rows = [
        HEADER,
        "HHS,Health,NIH,075,hhs.gov,1,executive",
        "EPA,Environment,NOWHERE,068,epa.gov,1,executive",
        "FCC,Communications,,,nasa.gov,1,executive",
    ]
    refused = problem(await program.import_register("\n".join(rows)), 422)
    assert [(error["line"], error["field"], error["value"]) for error in refused["errors"]] == [
        (2, "parent", "NIH"),
        (3, "parent", "NOWHERE"),
        (4, "domains", "nasa.gov"),
    ]
    assert await listed(program) == before


async def test_two_agencies_exchange_domains(program: Program) -> None:
    rows = [HEADER, "NASA,NASA,,,energy.gov,1,executive", "DOE,Energy,,,nasa.gov,1,executive"]
    assert (await program.import_register("\n".join(rows))).json() == {"imported": 2, "unchanged": 0}
    assert (await program.get("agencies/DOE")).json()["domains"] == ["nasa.gov"]


async def test_an_enrolled_agency_stays_in_the_executive_branch(program: Program) -> None:
    rows = "\n".join([HEADER, "NASA,NASA,,,nasa.gov,1,judicial", "DOE,Energy,,,energy.gov,1,judicial"])
    await program.post("NASA", "enrollments", enrollment())
    refused = problem(await program.import_register(rows), 422)
    assert [(error["line"], error["field"], error["value"]) for error in refused["errors"]] == [
        (2, "branch", "judicial")
    ]
    assert (await program.get("agencies/DOE")).json()["branch"] == "executive"
    await program.withdraw("NASA")
    assert (await program.import_register(rows)).json() == {"imported": 2, "unchanged": 0}


async def test_an_import_waits_for_a_submission_that_is_under_way(program: Program) -> None:
    database = program.service.process.app.state.database
    command = SubmitEnrollment("NASA", 1, START, Person("Robin Invented", "robin.invented@agency.gov"))

    async def import_waits() -> bool:
        waiting = (
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        )
        return bool(await program.service.admin.fetchval(waiting) == 1)

    async with database.write("NASA", context=Context("operator", "cor_1")) as uow:
        await submit_enrollment(uow, command, seats_per_head=1.5)
        row = f"{HEADER}\nNASA,NASA,,,nasa.gov,1,judicial"
        importing = asyncio.create_task(program.import_register(row))
        await eventually(import_waits)
    refused = problem(await importing, 422)
    assert [error["field"] for error in refused["errors"]] == ["branch"]


async def test_files_that_are_refused_as_a_whole(program: Program) -> None:
    for content in (b"", HEADER.encode(), b"id,name\nNASA,NASA\n", REGISTER.encode("utf-16")):
        assert problem(await program.import_register(content), 422)["errors"]
    problem(await program.import_register(REGISTER, "application/json"), 415)


async def test_an_agency_cannot_import(program: Program) -> None:
    for token in (
        program.service.token("enrollment:write"),
        program.service.token("enrollment:operate", agency="NASA"),
    ):
        response = await program.import_register(REGISTER, Authorization=f"Bearer {token}")
        assert response.status_code == 403


async def test_concurrent_imports_run_one_after_the_other(empty: Program) -> None:
    names = {name: REGISTER.replace("Department of", name) for name in ("Office of", "Bureau of", "Board of")}
    responses = await asyncio.gather(*(empty.import_register(content) for content in names.values()))
    assert [response.status_code for response in responses] == [200] * 3
    assert sorted(response.json()["imported"] for response in responses) == [2, 2, 7]
    shown = await listed(empty)
    assert {shown["HHS"].split(" Health")[0], shown["DOE"].split(" Energy")[0]} <= set(names)
    assert shown["HHS"].split(" Health")[0] == shown["DOE"].split(" Energy")[0]


async def test_the_register_comes_in_pages(program: Program) -> None:
    seen, after = [], ""
    while True:
        page = (await program.get(f"agencies?limit=3{after}")).json()
        seen += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert seen == sorted(row.split(",")[0] for row in REGISTER.splitlines()[1:])

"""A token for several agencies sees and changes only those; use of a break-glass token is logged and audited."""

import json
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from prometheus_client import REGISTRY

from muster_runtime.database.transactions import Database
from tests.integration.runtime.http.conftest import Sample
from tests.integration.runtime.http.problems import problem

AGENCIES = ("NASA", "NIH", "DOE")
REASON = "the billing run of 30 September hangs"


async def write_everywhere(sample: Sample) -> dict[str, str]:
    """A note in each agency: its ID by agency."""
    replies = {each: await sample.client.post(f"/v1/agencies/{each}/notes", json={"text": each}) for each in AGENCIES}
    return {agency_id: reply.json()["note_id"] for agency_id, reply in replies.items()}


async def test_a_list_shows_exactly_the_callers_agencies(sample: Sample) -> None:
    await write_everywhere(sample)
    for agency, seen in (
        (["NIH", "NASA"], ["NASA", "NIH"]),
        (["NASA"], ["NASA"]),
        ("NASA", ["NASA"]),
        ("*", list(AGENCIES)),
        (["EPA", "FDA"], []),
    ):
        reply = await sample.client.get("/v1/audit", headers=sample.bearer("sample:audit", agency=agency))
        assert [entry["agency_id"] for entry in reply.json()["items"]] == seen
    both = sample.bearer("sample:audit", agency=["NIH", "NASA"])
    problem(await sample.client.get("/v1/audit?agency_id=DOE", headers=both), 404)
    problem(await sample.client.get("/v1/audit?agency_id=NIH,NASA", headers=both), 404)
    (entry,) = (await sample.client.get("/v1/audit?agency_id=NIH", headers=both)).json()["items"]
    assert entry["agency_id"] == "NIH"


async def test_a_path_shows_its_own_agency_even_to_a_caller_of_several(sample: Sample) -> None:
    notes = await write_everywhere(sample)
    both = sample.bearer("sample:read", "sample:write", agency=["NIH", "NASA"])
    for agency_id in ("NASA", "NIH"):
        reply = await sample.client.get(f"/v1/agencies/{agency_id}/notes", headers=both)
        assert [note["text"] for note in reply.json()["items"]] == [agency_id]
    problem(await sample.client.get(f"/v1/agencies/NASA/notes/{notes['NIH']}", headers=both), 404)
    for agency_id in ("DOE", "*", "NASA,NIH", "NIH,NASA"):
        problem(await sample.client.get(f"/v1/agencies/{agency_id}/notes", headers=both), 404)
        problem(await sample.client.post(f"/v1/agencies/{agency_id}/notes", json={"text": "a"}, headers=both), 404)
    assert await sample.count("note") == 3


async def test_an_idempotency_key_belongs_to_the_agency_of_the_path(sample: Sample) -> None:
    """Whether a caller acts for one agency or for several, a command is carried out once in an agency."""
    several = sample.bearer("sample:write", agency=["NIH", "NASA"])
    one = sample.bearer("sample:write", agency="NASA")
    replies = [
        await sample.client.post(f"/v1/agencies/{agency}/notes", json={"text": "a"}, headers={**who, **key})
        for agency, who in (("NASA", several), ("NIH", several), ("NASA", one))
        for key in [{"Idempotency-Key": "k-1"}]
    ]
    assert [reply.headers.get("idempotency-replayed") for reply in replies] == [None, None, "true"]
    assert replies[0].json() == replies[2].json() != replies[1].json()


async def test_row_level_security_shows_the_agencies_of_a_reader(sample: Sample) -> None:
    """Below the API: a query without a condition sees only the rows of these agencies, and changes none."""
    await write_everywhere(sample)
    database: Database = sample.app.state.database

    async def seen(*agencies: str) -> set[str]:
        async with database.read(*agencies) as connection:
            return {row["agency_id"] for row in await connection.fetch("select agency_id from note")}

    assert await seen("NIH", "NASA") == {"NASA", "NIH"}
    assert await seen("NASA") == {"NASA"}
    assert await seen("*") == set(AGENCIES)
    assert await seen("NAS", "*A") == await seen("") == await seen() == set()
    for statement in ("update note set text = ''", "delete from note"):
        async with database.pool.acquire() as connection, connection.transaction():
            await connection.execute("select set_config('muster.agency', 'NASA,NIH', true)")
            try:
                assert (await connection.execute(statement)).endswith(" 0")
            except asyncpg.InsufficientPrivilegeError:
                continue
    assert await sample.count("note") == 3


def breaking(sample: Sample, *scopes: str, **more: Any) -> dict[str, str]:
    """The header of a break-glass token."""
    return sample.bearer(*scopes, break_glass=True, lifetime=timedelta(minutes=30), **more)


def times_used() -> float:
    """The counter exists from zero on: the alert compares it with its earlier value."""
    value = REGISTRY.get_sample_value("muster_break_glass_total", {"service": "sample"})
    assert value is not None
    return value


async def test_break_glass_is_logged_counted_and_audited(sample: Sample) -> None:
    before = times_used()
    headers = {**breaking(sample, "sample:write", subject="ada"), "Muster-Reason": REASON}
    assert (await sample.client.post("/v1/agencies/NASA/notes", json={"text": "a"}, headers=headers)).is_success
    assert (await sample.client.delete("/v1/agencies/NASA/notes", headers=headers)).is_success
    rows = await sample.admin.fetch("select command, reason from audit order by id")
    assert [tuple(row) for row in rows] == [
        ("WriteNote", f"asked (break-glass: {REASON})"),
        ("DeleteNothing", f"break-glass: {REASON}"),
    ]
    lines = [json.loads(line) for line in sample.logged.getvalue().splitlines()]
    used = [line for line in lines if line["event"] == "break_glass_used"]
    assert [(line["level"], line["actor"], line["method"], line["reason"]) for line in used] == [
        ("warning", "ada", "POST", REASON),
        ("warning", "ada", "DELETE", REASON),
    ]
    assert times_used() == before + 2
    # A refused request is logged too, but not what its caller put in the path.
    assert (await sample.client.delete("/v1/agencies/ann.lee@agency.gov/notes", headers=headers)).is_error
    assert times_used() == before + 3
    assert '"path": "/v1/agencies/\\u2026/notes"' in sample.logged.getvalue()
    assert "ann.lee" not in sample.logged.getvalue()


@pytest.mark.parametrize("reason", [None, "because"])
async def test_break_glass_without_a_reason_is_refused(sample: Sample, reason: str | None) -> None:
    before = times_used()
    headers = breaking(sample, "sample:read") | ({} if reason is None else {"Muster-Reason": reason})
    said = problem(await sample.client.get("/v1/agencies/NASA/notes", headers=headers), 403)
    assert said["type"] == "urn:muster:problem:reason-required"
    assert "Muster-Reason" in said["detail"]
    assert "10 to 500" in said["detail"]
    assert times_used() == before
    twice = [*headers.items(), ("Muster-Reason", REASON), ("Muster-Reason", REASON)]
    problem(await sample.client.get("/v1/agencies/NASA/notes", headers=twice), 400)

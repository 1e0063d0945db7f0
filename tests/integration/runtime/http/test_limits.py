"""Quotas of requests per second, and shares of the connections: at the limit, other callers are served."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import httpx
import pytest
from prometheus_client import REGISTRY

from muster_runtime.http.application import create_app
from muster_runtime.http.keys import KeySource
from muster_runtime.http.roles import Roles
from tests.integration.runtime.http.conftest import Sample
from tests.integration.runtime.http.problems import problem
from tests.support.eventually import eventually

NOTES = "/v1/agencies/NASA/notes"

POLICY = '"token";q=3;w=1, "agency";q=5;w=1'


@pytest.fixture
async def limited(sample: Sample) -> AsyncIterator[httpx.AsyncClient]:
    """The sample with a few requests per second, behind TLS."""
    runtime = sample.app.state.runtime
    changes = {"http_token_rate": 3, "http_agency_rate": 5, "http_behind_tls": True}
    settings = runtime.settings.model_copy(update=changes)
    keys = KeySource(str(sample.tokens.jwks))
    app = create_app(
        replace(runtime, settings=settings), sample.app.state.database, sample.check_health, keys, Roles.load("")
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sample.test") as client:
        yield client


def refused_metric(quota: str) -> float:
    labels = {"service": "sample", "quota": quota}
    return REGISTRY.get_sample_value("muster_http_rate_limited_total", labels) or 0


async def test_beyond_its_quota_a_client_waits_and_others_are_served(
    sample: Sample, limited: httpx.AsyncClient
) -> None:
    ada, grace = (sample.bearer("sample:read", agency="NASA", subject=name) for name in ("ada", "grace"))
    before = refused_metric("token")
    answers = [await limited.get(NOTES, headers=ada) for _ in range(20)]
    assert [answer.status_code for answer in answers[:3]] == [200] * 3
    refused = next(answer for answer in answers if answer.status_code == 429)
    body = problem(refused, 429)
    assert (body["type"], body["violated-policies"]) == ("urn:muster:problem:quota-exceeded", ["token"])
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["ratelimit-policy"] == POLICY
    assert re.fullmatch(r'"token";r=0;t=1, "agency";r=\d;t=1', refused.headers["ratelimit"])
    assert refused_metric("token") > before
    assert (await limited.get(NOTES, headers=grace)).status_code == 200

    async def served_again() -> bool:
        return (await limited.get(NOTES, headers=ada)).status_code == 200

    await eventually(served_again)


async def test_every_answer_of_a_route_that_needs_a_token_states_the_callers_quota(
    sample: Sample, limited: httpx.AsyncClient
) -> None:
    nasa = sample.bearer("sample:read", agency="NASA", subject="ada")
    for path, status in ((NOTES, 200), ("/v1/nothing", 404), (f"{NOTES}?limit=0", 422)):
        answer = await limited.get(path, headers=nasa)
        assert (answer.status_code, answer.headers["ratelimit-policy"]) == (status, POLICY)
    program = await limited.get(NOTES, headers=sample.bearer("sample:read"))
    assert program.headers["ratelimit-policy"] == '"token";q=3;w=1'
    for path in (NOTES, "/health/live"):
        assert "ratelimit" not in (await limited.get(path)).headers


async def test_behind_tls_browsers_are_told_to_keep_using_it(sample: Sample, limited: httpx.AsyncClient) -> None:
    assert (await limited.get("/docs")).headers["strict-transport-security"] == "max-age=31536000"
    assert "strict-transport-security" not in (await sample.client.get("/docs")).headers


async def test_slow_reads_of_one_tenant_leave_connections_to_others(sample: Sample) -> None:
    """The tenant acts for two agencies, which share what it may hold."""
    slow = sample.bearer("sample:read", agency=["NASA", "NIH"])
    doe = sample.bearer("sample:read", "sample:write", agency="DOE")
    share = sample.app.state.runtime.settings.postgres_pool_size // 3

    async def waiting() -> int:
        found: int = await sample.admin.fetchval(
            "select count(*) from pg_locks where not granted and relation = $1", table
        )
        return found

    table = await sample.admin.fetchval("select 'proposal'::regclass::oid")
    async with asyncio.TaskGroup() as tasks, sample.admin.transaction():
        await sample.admin.execute("lock table proposal in access exclusive mode")
        reads = [tasks.create_task(sample.client.get("/v1/proposals", headers=slow)) for _ in range(40)]
        await eventually(lambda: at_least(waiting, share))
        read = await sample.client.get("/v1/agencies/DOE/notes", headers=doe)
        command = await sample.client.post("/v1/agencies/DOE/notes", headers=doe, json={"text": "a note"})
        assert (read.status_code, command.status_code) == (200, 201)
        assert await waiting() == share
    assert {task.result().status_code for task in reads} == {200}


async def at_least(count: Callable[[], Awaitable[int]], wanted: int) -> bool:
    return await count() >= wanted

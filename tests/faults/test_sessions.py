"""A session whose client has vanished holds an agency's lock: Postgres ends it before long."""

import time
from dataclasses import replace

import pytest

from tests.faults.field import Field, Where
from tests.faults.findings import Findings
from tests.faults.proxy import PostgresProxy
from tests.support.eventually import eventually

# Within this time, whoever waits for the agency continues.
BOUND_SECONDS = 32


@pytest.mark.drill
async def test_38_the_lock_of_a_client_that_fell_silent_is_free_within_half_a_minute(
    field: Field, findings: Findings
) -> None:
    """The connection stays open, and nothing arrives, not even a sign of the client's end."""
    async with PostgresProxy(field.postgres_dsn) as proxy:
        access = replace(field.access, worker_dsn=proxy.address_of(field.access.worker_dsn))
        await _others_go_on_after(field, findings, Where(access, field.bootstrap), proxy, seconds=1)


@pytest.mark.drill
async def test_38_the_query_of_a_client_that_was_killed_ends_at_once(field: Field, findings: Findings) -> None:
    """The server notices that the connection is closed, though it has nothing to send."""
    await _others_go_on_after(field, findings, None, None, seconds=60)


async def _others_go_on_after(
    field: Field, findings: Findings, where: Where | None, proxy: PostgresProxy | None, seconds: int
) -> None:
    await field.serve("relay")
    consumer = field.start("consumer", where=where)
    await field.ready(consumer)
    await field.trouble("NASA", "slow", seconds=seconds)
    await field.assign_seats("NASA", "slow")
    await eventually(field.handler_sleeps, timeout=30)
    if proxy is not None:
        proxy.fall_silent()
    consumer.kill()
    began = time.monotonic()
    await field.no_more_trouble()
    findings.fault_is_over()
    await field.assign_seats("NASA", "next")
    waited = time.monotonic() - began
    assert waited < BOUND_SECONDS
    heir = field.start("consumer")
    await field.ready(heir)
    await field.at_rest()
    findings.recovered(f"another client had the agency's lock after {waited:.0f} s")
    assert await field.differences() == []

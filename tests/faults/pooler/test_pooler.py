"""PgBouncer in front of Postgres: session mode works in full; in any other mode a process refuses to start."""

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from muster_runtime.clock import SystemClock
from muster_runtime.database.transactions import Database
from tests.faults.field import Field
from tests.faults.findings import Findings
from tests.faults.pooler.pgbouncer import PgBouncer, StartPooler
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually

SETTINGS = ("application_name", "idle_in_transaction_session_timeout", "lock_timeout", "search_path")


async def _settings(database: Database) -> list[str]:
    async with database.connection() as connection:
        rows = await connection.fetch("select current_setting(name) as value from unnest($1::text[]) as name", SETTINGS)
    return [row["value"] for row in rows]


async def test_40_in_session_mode_nothing_is_lost_when_pgbouncer_is_killed(
    field: Field, findings: Findings, start_pooler: StartPooler
) -> None:
    pooler = await start_pooler("pool_mode = session", "default_pool_size = 40")
    where = pooler.in_front_of(field)
    await field.serve("relay", where=where)
    others = [field.start(role, where=where) for role in ("consumer", "scheduler")]
    await field.ready(*others)
    async with field.live_traffic():
        await field.traffic(30)
        assert await _names(field) == {"muster-probe", "muster-probe-wakeup"}
        pooler.kill()
        await pooler.up()
        findings.fault_is_over()
        await field.traffic(30)
    await field.at_rest()
    findings.recovered("PgBouncer was killed under traffic")
    await field.ready(field.api, *others)
    assert await field.differences() == []


async def _names(field: Field) -> set[str]:
    rows = await field.admin.fetch(
        "select distinct application_name from pg_stat_activity where usename in ('probe_api', 'probe_worker')"
    )
    return {row["application_name"] for row in rows}


@pytest.fixture
async def pooler(start_pooler: StartPooler) -> PgBouncer:
    return await start_pooler("pool_mode = session")


async def test_40_a_command_whose_agency_is_locked_is_answered_503_after_30_seconds(
    field: Field, pooler: PgBouncer
) -> None:
    await field.serve(where=pooler.in_front_of(field))
    async with field.admin.transaction():
        await field.admin.execute("select lock_agencies(array['NASA'])")
        began = time.monotonic()
        reply = await field.client.post("/v1/agencies/NASA/seats", json={"seat_ids": ["a"]}, timeout=100)
        waited = time.monotonic() - began
    assert (reply.status_code, "retry-after" in reply.headers) == (503, True)
    assert 29 < waited < 35


@pytest.fixture
async def database(field: Field, pooler: PgBouncer) -> AsyncIterator[Database]:
    """The API's pool, with a short lock timeout."""
    database = await Database(
        pooler.address_of(field.access.api_dsn), "probe", SystemClock(), size=2, lock_timeout_seconds=1
    ).open()
    yield database
    await database.close()


async def test_40_a_session_keeps_its_settings_for_every_user_of_its_connection(database: Database) -> None:
    assert await _settings(database) == ["muster-probe", "25s", "1s", "probe"]
    assert await _settings(database) == ["muster-probe", "25s", "1s", "probe"]


async def test_40_a_wait_for_a_held_lock_lasts_as_long_as_the_setting_says(database: Database) -> None:
    async with database.write("NASA", context=CONTEXT):
        began = time.monotonic()
        with pytest.raises(asyncpg.LockNotAvailableError):
            async with asyncio.timeout(20), database.write("NASA", context=CONTEXT):
                pass
    assert time.monotonic() - began < 10


async def test_40_no_setting_passes_from_a_client_to_the_next(field: Field, pooler: PgBouncer) -> None:
    address = pooler.address_of(field.access.worker_dsn)
    other = await asyncpg.connect(address)
    await other.execute("set search_path = nowhere; set lock_timeout = '1h'; set application_name = other")
    server_connection = await other.fetchval("select pg_backend_pid()")
    await other.close()
    database = await Database(address, "probe", SystemClock(), lock_timeout_seconds=2).open()
    assert await _settings(database) == ["muster-probe", "25s", "2s", "probe"]
    async with database.connection() as connection:
        assert await connection.fetchval("select pg_backend_pid()") == server_connection
    await database.close()
    other = await asyncpg.connect(address)
    assert await other.fetchval("select pg_backend_pid()") == server_connection
    assert await other.fetchval("show lock_timeout") == "0"
    await other.close()


@pytest.mark.parametrize("round_robin", [0, 1])
async def test_40_transaction_mode_is_refused_in_one_line(
    field: Field, start_pooler: StartPooler, round_robin: int
) -> None:
    pooler = await start_pooler("pool_mode = transaction", f"server_round_robin = {round_robin}")
    line = await _refusal(field, pooler)
    assert line == (
        "MUSTER_POSTGRES_WORKER_DSN points to a pooler in transaction mode, which does not support LISTEN, prepared "
        "statements, and session settings: set its pool_mode to session, or connect to Postgres directly"
    )


async def test_40_statement_mode_is_refused_in_one_line(field: Field, start_pooler: StartPooler) -> None:
    line = await _refusal(field, await start_pooler("pool_mode = statement"))
    assert line == (
        "Postgres cannot be reached at MUSTER_POSTGRES_WORKER_DSN: "
        "connection was closed in the middle of operation: transaction blocks not allowed in statement pooling mode"
    )


async def _refusal(field: Field, pooler: PgBouncer) -> str:
    """The one line that a process writes, besides its log, when it refuses to start."""
    process = field.start("relay", "consumer", where=pooler.in_front_of(field))
    await eventually(lambda: not process.runs, timeout=60)
    (line,) = (line for line in process.said().splitlines() if not line.startswith("{"))
    assert process.exit_status == 2
    return line

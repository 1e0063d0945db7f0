"""The agency's lock and row-level security: what a transaction may read, and what it is refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import asyncpg
import pytest

from muster_contracts.entitlements import SeatAssigned
from muster_runtime.context import Context
from muster_runtime.database.locks import FIRST_ROUND_SECONDS
from muster_runtime.database.transactions import ACQUIRE_SECONDS, EVERY_AGENCY, Database
from muster_runtime.http.agency_queue import AgencyQueue
from muster_runtime.http.command_gate import CommandGate
from muster_runtime.messaging.backlog import Backlog
from muster_runtime.process.parts import api_database, worker_database
from tests.integration.runtime.core.test_held_locks import busy
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.services import RunningService

EFFECT = "insert into effect (agency_id, event_id, sequence, seat_id) values ($1, 'e', 1, 's')"


def seat(agency_id: str, seat_id: str = "seat_1") -> SeatAssigned:
    return SeatAssigned(agency_id=agency_id, seat_id=seat_id, subject_ref="sub_1")


@pytest.fixture(params=["api", "worker"])
async def database(request: pytest.FixtureRequest, idle_probe: RunningService) -> AsyncIterator[Database]:
    access = idle_probe.access
    dsn = access.api_dsn if request.param == "api" else access.worker_dsn
    database = await Database(dsn, "probe", idle_probe.clock, size=3).open()
    yield database
    await database.close()


async def test_a_write_without_the_lock_is_refused(database: Database) -> None:
    async with database.pool.acquire() as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await connection.execute(EFFECT, "NASA")


async def test_a_write_to_an_agency_that_is_not_locked_is_refused(database: Database) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with database.write("NASA", context=CONTEXT) as uow:
            await uow.connection.execute(EFFECT, "DOE")


async def test_one_name_never_locks_two_agencies(database: Database) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="comma"):
        async with database.write("NASA,DOE", context=CONTEXT) as uow:
            await uow.connection.execute(EFFECT, "DOE")


async def test_an_event_of_an_agency_that_is_not_locked_is_refused(database: Database) -> None:
    with pytest.raises(RuntimeError, match="not locked"):
        async with database.write("NASA", context=CONTEXT) as uow:
            uow.publish(seat("DOE"))


async def test_an_event_that_no_reader_could_read_is_refused(database: Database) -> None:
    context = Context(actor="test", correlation_id="")
    with pytest.raises(RuntimeError, match="has no correlation ID"):
        async with database.write("NASA", context=context) as uow:
            uow.publish(seat("NASA"))
    with pytest.raises(RuntimeError, match="has no correlation ID"):
        async with database.write("NASA", context=context) as uow:
            uow.publish_encoded(SeatAssigned, "NASA", [b"{}"])


async def test_a_second_writer_waits_and_then_sees_what_the_first_has_committed(
    database: Database, idle_probe: RunningService
) -> None:
    async def second() -> list[str]:
        async with database.write("NASA", context=CONTEXT) as uow:
            return [row["agency_id"] for row in await uow.connection.fetch("select agency_id from effect")]

    async with database.write("NASA", context=CONTEXT) as first:
        await first.connection.execute(EFFECT, "NASA")
        waiting = asyncio.create_task(second())
        await eventually(
            lambda: idle_probe.admin.fetchval(
                """
                select count(*)
                from pg_stat_activity
                where datname = current_database() and wait_event = 'advisory'
                """
            )
        )
        assert not waiting.done()
    assert await waiting == ["NASA"]


async def test_the_lock_ends_with_its_transaction(database: Database) -> None:
    async with database.write("NASA", context=CONTEXT) as uow:
        await uow.connection.execute(EFFECT, "NASA")
    async with database.pool.acquire() as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(EFFECT, "NASA")


async def test_the_api_role_reads_its_tenant_alone(idle_probe: RunningService) -> None:
    api = await Database(idle_probe.access.api_dsn, "probe", idle_probe.clock, size=2).open()
    for agency in ("NASA", "DOE"):
        async with api.write(agency, context=CONTEXT) as uow:
            await uow.connection.execute(EFFECT, agency)
    seen = {}
    for tenant in ("NASA", "DOE", "EPA", EVERY_AGENCY):
        async with api.read(tenant) as connection:
            seen[tenant] = [r["agency_id"] for r in await connection.fetch("select agency_id from effect order by id")]
    async with api.pool.acquire() as connection:
        seen["none"] = await connection.fetch("select agency_id from effect")
    await api.close()
    assert seen == {"NASA": ["NASA"], "DOE": ["DOE"], "EPA": [], EVERY_AGENCY: ["NASA", "DOE"], "none": []}


async def test_commands_for_agencies_whose_locks_are_held_leave_connections_to_others(
    idle_probe: RunningService,
) -> None:
    held = [f"A{number:02}" for number in range(12)]
    settings, clock = idle_probe.runtime.settings, idle_probe.clock
    gate = CommandGate(AgencyQueue(settings.agency_queue), Backlog(10))
    api = await Database(idle_probe.access.api_dsn, "probe", clock, size=2, gate=gate).open()

    async def command(agency_id: str) -> None:
        async with api.write(agency_id, context=CONTEXT) as uow:
            await uow.connection.execute(EFFECT, agency_id)

    async with idle_probe.admin.transaction():
        await idle_probe.admin.execute("select lock_agencies($1)", held)
        waiting = [asyncio.create_task(command(agency_id)) for agency_id in held]
        await asyncio.sleep(0)  # so that they are first at the pool
        async with asyncio.timeout(ACQUIRE_SECONDS):
            await command("NASA")
            async with api.read("NASA") as connection:
                assert await connection.fetchval("select count(*) from effect") == 1
        assert not any(task.done() for task in waiting)
    await asyncio.gather(*waiting)
    assert await idle_probe.admin.fetchval("select count(*) from effect") == len(held) + 1
    await api.close()


async def test_a_command_whose_connection_comes_late_is_not_taken_for_one_whose_lock_is_held(
    idle_probe: RunningService,
) -> None:
    gate = CommandGate(AgencyQueue(10), Backlog(10))
    api = await Database(
        idle_probe.access.api_dsn, "probe", idle_probe.clock, size=1, lock_timeout_seconds=0, gate=gate
    ).open()

    async def command(agency_id: str) -> None:
        async with api.write(agency_id, context=CONTEXT) as uow:
            await uow.connection.execute("select pg_sleep($1)", 2 * FIRST_ROUND_SECONDS)

    async with asyncio.timeout(20):  # no second round: the first one that fails raises
        await asyncio.gather(*map(command, ("NASA", "DOE", "EPA")))
    await api.close()


async def test_a_command_for_a_busy_agency_gets_its_turn(idle_probe: RunningService) -> None:
    gate = CommandGate(AgencyQueue(10), Backlog(10))
    api = await Database(idle_probe.access.api_dsn, "probe", idle_probe.clock, size=3, gate=gate).open()
    async with busy(idle_probe, "NASA", callers=6), asyncio.timeout(15), api.write("NASA", context=CONTEXT) as uow:
        await uow.connection.execute(EFFECT, "NASA")
    await api.close()


@pytest.mark.parametrize("seconds", [0, 1])  # the first round is the last; a later one is, or Postgres ends it
async def test_a_command_waits_for_a_held_lock_no_longer_than_the_setting_says(
    idle_probe: RunningService, seconds: int
) -> None:
    gate = CommandGate(AgencyQueue(10), Backlog(10))
    api = await Database(
        idle_probe.access.api_dsn, "probe", idle_probe.clock, size=2, lock_timeout_seconds=seconds, gate=gate
    ).open()
    async with idle_probe.admin.transaction():
        await idle_probe.admin.execute("select lock_agencies('{NASA}')")
        async with asyncio.timeout(20):
            with pytest.raises((TimeoutError, asyncpg.LockNotAvailableError)) as refused:
                async with api.write("NASA", context=CONTEXT):
                    pass
    assert refused.type in (TimeoutError, asyncpg.LockNotAvailableError)  # a log line names it
    async with api.write("NASA", context=CONTEXT) as uow:
        await uow.connection.execute(EFFECT, "NASA")
    await api.close()


async def test_a_read_that_takes_too_long_is_ended_and_its_connection_serves_the_next(
    idle_probe: RunningService,
) -> None:
    api = await Database(
        idle_probe.access.api_dsn, "probe", idle_probe.clock, size=1, lock_timeout_seconds=60, statement_seconds=1
    ).open()
    async with asyncio.timeout(20), idle_probe.admin.transaction():
        await idle_probe.admin.execute("lock table effect")
        with pytest.raises(asyncpg.QueryCanceledError, match="statement timeout"):
            async with api.read("NASA") as connection:
                await connection.fetch("select from effect")
        with pytest.raises(asyncpg.QueryCanceledError, match="statement timeout"):
            async with api.read("NASA", of_one_state=True, partitioned="effect"):
                pass
        with pytest.raises(asyncpg.QueryCanceledError, match="statement timeout"):
            async with api.read_on_record("NASA") as connection:
                await connection.fetch("select from effect")
    async with api.read("NASA") as connection:
        assert await connection.fetch("select from effect") == []
    async with api.write("NASA", context=CONTEXT) as uow:
        assert await uow.connection.fetchval("show statement_timeout") == "61s"  # includes the wait for the lock
    await api.close()


async def test_only_the_statements_of_requests_have_a_limit(idle_probe: RunningService) -> None:
    limits, runtime = [], idle_probe.runtime
    async with AsyncExitStack() as stack:
        api = await api_database(runtime.service, runtime.clock, Backlog(10), stack)
        worker = await worker_database(runtime.service, runtime.clock, stack)
        for database in (api, worker):
            async with database.read("NASA") as connection:
                limits.append(await connection.fetchval("show statement_timeout"))
            async with database.connection() as connection:
                limits.append(await connection.fetchval("show statement_timeout"))
    assert limits == ["10s", "40s", "0", "0"]


@pytest.mark.parametrize("own", ["NASA", EVERY_AGENCY])
async def test_a_faulty_statement_of_the_api_role_moves_no_row_of_another_agency(
    idle_probe: RunningService, own: str
) -> None:
    """An update without a condition applies to every row that its policy lets it see."""
    api = await Database(idle_probe.access.api_dsn, "probe", idle_probe.clock, size=2).open()
    for agency in (own, "DOE"):
        async with api.write(agency, context=CONTEXT) as uow:
            await uow.connection.execute(
                "insert into stream (topic, agency_id, last_sequence) values ($1, $2, 1)", f"topic of {agency}", agency
            )
    async with api.write(own, context=CONTEXT) as uow:
        assert await uow.connection.execute("update stream set agency_id = $1, last_sequence = 7", own) == "UPDATE 1"
    await api.close()
    rows = await idle_probe.admin.fetch("select agency_id, last_sequence from stream order by last_sequence")
    assert [tuple(row) for row in rows] == [("DOE", 1), (own, 7)]


@pytest.mark.parametrize(
    "statement",
    [
        "create table mine (id bigint)",
        "alter table effect disable row level security",
        "drop table effect",
        "set role probe_owner",
        "update audit set actor = 'somebody else'",
        "delete from audit",
    ],
)
async def test_a_runtime_role_has_no_right_beyond_its_work(database: Database, statement: str) -> None:
    async with database.pool.acquire() as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


async def test_a_rollback_takes_its_sequences_back(idle_probe: RunningService) -> None:
    database = idle_probe.runtime.database
    async with database.write("NASA", context=CONTEXT) as uow:
        uow.publish(seat("NASA", "first"))
    with suppress(asyncpg.DivisionByZeroError):
        async with database.write("NASA", context=CONTEXT) as uow:
            uow.publish(seat("NASA", "never"))
            await uow.flush()
            await uow.connection.execute("select 1 / 0")
    async with database.write("NASA", context=CONTEXT) as uow:
        uow.publish(seat("NASA", "second"))
        uow.publish(seat("NASA", "third"))
    rows = await idle_probe.admin.fetch("select first_sequence, events from outbox order by id")
    assert [tuple(row) for row in rows] == [(1, 1), (2, 2)]

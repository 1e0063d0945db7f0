"""Errors of Postgres: readiness reports them, and only one that the event itself causes parks its stream."""

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic import SecretStr

from muster_runtime.database.sessions import Address
from muster_runtime.process.roles import Role
from muster_runtime.process.running import running
from muster_runtime.process.start_checks import StartRefused
from muster_runtime.settings import Settings
from tests.integration.runtime.core.looks import has_parked, not_ready, parked_streams, ready, seat, seats
from tests.integration.runtime.core.probe.service import build
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner

NOWHERE = "postgresql://probe_worker:none@127.0.0.1:1/probe"


async def test_a_process_without_postgres_refuses_to_start_and_says_why(run_service: ServiceRunner) -> None:
    settings = (await run_service(build, Settings, roles=frozenset())).runtime.settings
    worker = urlsplit(settings.postgres_worker_dsn.get_secret_value())
    wrong = worker._replace(netloc=worker.netloc.replace(worker.password or "", "wrong"))
    for address, start, complaint in (
        (wrong.geturl(), "refuses", 'password authentication failed for user "probe_worker"'),
        (NOWHERE, "cannot be reached at", "Connect call failed"),
    ):
        changed = settings.model_copy(update={"postgres_worker_dsn": SecretStr(address)})
        with pytest.raises(StartRefused, match=complaint) as refusal:
            async with running(build(changed), frozenset()):
                pass
        assert str(refusal.value).startswith(f"Postgres {start} MUSTER_POSTGRES_WORKER_DSN: ")


async def test_readiness_reports_pending_migrations(run_service: ServiceRunner) -> None:
    first = await run_service(build, Settings, roles=frozenset())
    version = await first.admin.fetchval(
        "delete from schema_migrations where version = '20250806000100' returning version"
    )
    second = await run_service(build, Settings, beside=first)
    await eventually(lambda: not_ready(second, f"migrations are pending: {version}"))
    await first.admin.execute("insert into schema_migrations (version) values ($1)", version)
    await eventually(lambda: ready(second))


async def test_code_that_is_ahead_of_its_migration_parks_nothing(run_service: ServiceRunner) -> None:
    """A deployment whose migration was forgotten: no event is to blame for the missing column."""
    probe = await run_service(build, Settings)
    await eventually(lambda: ready(probe))
    version = await probe.admin.fetchval(
        "delete from schema_migrations where version = '20250806000100' returning version"
    )
    await probe.admin.execute("alter table effect rename column seat_id to seat_id_of_old")
    await probe.publish(seat("NASA", "a"), seat("DOE", "a"))
    await eventually(lambda: not_ready(probe, "the consumer cannot apply: MigrationsPending"))
    await eventually(lambda: not_ready(probe, f"migrations are pending: {version}"))
    assert await parked_streams(probe) == set()

    await probe.admin.execute("alter table effect rename column seat_id_of_old to seat_id")
    await probe.admin.execute("insert into schema_migrations (version) values ($1)", version)
    await eventually(lambda: seats(probe, "NASA", 1))
    await eventually(lambda: seats(probe, "DOE", 1))
    await eventually(lambda: ready(probe))


async def test_a_handler_that_breaks_a_rule_of_postgres_parks_its_stream_alone(probe: RunningService) -> None:
    """Class 42 too, but every migration is applied: it is the handler's fault, and only with this event."""
    await fail_with(probe, "insufficient_privilege", agency_id="NASA")
    await probe.publish(seat("NASA", "a"), seat("DOE", "a"))
    await eventually(lambda: seats(probe, "DOE", 1))
    await eventually(lambda: has_parked(probe, {"NASA"}))


@pytest.mark.parametrize(
    ("condition", "refuses"),
    [
        ("statement_too_complex", ["effect"]),
        ("program_limit_exceeded", ["effect", "parked_event"]),  # no transaction id is left, whatever the table
    ],
)
async def test_a_limit_of_the_server_parks_nothing(probe: RunningService, condition: str, refuses: list[str]) -> None:
    await fail_with(probe, condition, tables=refuses)
    await probe.publish(seat("NASA", "a"), seat("DOE", "a"))
    await eventually(lambda: not_ready(probe, "the consumer cannot apply"))
    assert await parked_streams(probe) == set()
    # Not both at once: what the first refused would be parked if the second were gone.
    await probe.admin.execute("drop trigger failing on effect")
    await eventually(lambda: seats(probe, "NASA", 1))
    await eventually(lambda: seats(probe, "DOE", 1))
    assert await parked_streams(probe) == set()


async def test_a_value_that_no_index_can_hold_parks_its_stream_alone(probe: RunningService) -> None:
    """Postgres reports it in the same class as its own limits."""
    await probe.admin.execute("create index on effect (seat_id)")
    await probe.publish(seat("NASA", secrets.token_hex(10_000)), seat("DOE", "a"))
    await eventually(lambda: seats(probe, "DOE", 1))
    await eventually(lambda: has_parked(probe, {"NASA"}))


async def fail_with(
    probe: RunningService, condition: str, *, tables: Sequence[str] = ("effect",), agency_id: str | None = None
) -> None:
    """Have rows, of one agency or all, refused with one of Postgres' own errors, which the test raises."""
    of_agency = f"when (new.agency_id = '{agency_id}')" if agency_id else ""
    await probe.admin.execute(
        f"""
        create function failing() returns trigger language plpgsql as $$
        begin
            raise exception 'refused by the test' using errcode = '{condition}';
        end $$;
        """
        + "".join(
            f"create trigger failing before insert on {table} for each row {of_agency} execute function failing();"
            for table in tables
        )
    )


async def test_readiness_reports_that_postgres_is_down(probe: RunningService, postgres: str) -> None:
    await eventually(lambda: ready(probe))
    database = await probe.admin.fetchval("select current_database()")
    outside = await asyncpg.connect(postgres)
    try:
        await outside.execute(f'alter database "{database}" with connection limit 0')
        await outside.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and usename <> current_user",
            database,
        )
        await eventually(lambda: not_ready(probe, "Postgres cannot be reached"))
        await outside.execute(f'alter database "{database}" with connection limit -1')
        await eventually(lambda: ready(probe))
    finally:
        await outside.close()


async def test_a_process_whose_connections_are_all_in_use_still_sees_postgres(idle_probe: RunningService) -> None:
    """As when they all wait for a synchronous standby."""
    pool = idle_probe.runtime.database.pool
    async with AsyncExitStack() as stack:
        for _ in range(pool.get_max_size()):
            await stack.enter_async_context(pool.acquire())
        assert await ready(idle_probe)


async def test_a_server_that_closes_each_connection_is_not_the_last_one_tried(idle_probe: RunningService) -> None:
    """As a proxy in front of a server that is down."""
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as down:
        worker = urlsplit(idle_probe.access.worker_dsn)
        credentials, _, server = worker.netloc.rpartition("@")
        hosts = f"127.0.0.1:{down.sockets[0].getsockname()[1]},{server}"
        both = worker._replace(netloc=f"{credentials}@{hosts}", query="sslmode=disable").geturl()
        connection = await Address(both).connect()
        assert await connection.fetchval("select current_user") == worker.username
        await connection.close()


async def test_a_write_that_finds_the_disk_full_is_reported_until_there_is_room(probe: RunningService) -> None:
    """The test raises the error with which Postgres answers when its disk is full."""
    await probe.admin.execute(
        """
        create function no_room() returns trigger language plpgsql as $$
        begin
            raise exception 'could not extend file: No space left on device' using errcode = 'disk_full';
        end $$;
        create trigger no_room before insert on effect for each row execute function no_room();
        create trigger no_room before insert on disk_probe for each row execute function no_room();
        """
    )
    await probe.publish(seat("NASA", "a"))
    await eventually(lambda: not_ready(probe, "Postgres' disk is full"))
    await eventually(lambda: not_ready(probe, "the consumer cannot apply: DiskFullError"))
    await probe.admin.execute("drop function no_room cascade")
    await eventually(lambda: seats(probe, "NASA", 1))
    await eventually(lambda: ready(probe))


async def test_the_oldest_snapshot_is_measured_whoever_holds_it(run_service: ServiceRunner) -> None:
    """An operator's console, reading or writing, holds it; the worker learns its age, and nothing more."""
    probe = await run_service(build, Settings, roles=frozenset({Role.API}))

    async def age() -> float:
        await probe.client.get("/health/ready")
        lines = (await probe.client.get("/metrics")).text.splitlines()
        (found,) = [line for line in lines if line.startswith('muster_oldest_snapshot_seconds{service="probe"}')]
        return float(found.split()[-1])

    async def is_short() -> bool:
        return await age() < 1

    async def is_longer_than_a_second() -> bool:
        return await age() > 1

    await eventually(is_short)
    for begin, statement in (
        ("begin isolation level repeatable read", "select 1 from outbox"),
        ("begin", "select pg_current_xact_id()"),
    ):
        await probe.admin.execute(begin)
        await probe.admin.execute(statement)
        await eventually(is_longer_than_a_second)
        await probe.admin.execute("rollback")
        await eventually(is_short)
    worker = await asyncpg.connect(probe.access.worker_dsn)
    assert await worker.fetchval("select not pg_has_role('pg_read_all_stats', 'usage')")
    await worker.close()

"""Code on a schema that is behind, ahead, or lacks what the code can do without."""

import asyncio
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import asyncpg
import psutil
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr

from muster_runtime.database.dbmate import migrate
from muster_runtime.database.schema import RUNTIME_MIGRATIONS, Schema, SchemaTooNew
from muster_runtime.database.schema_commands import describe, wait
from muster_runtime.exit_statuses import BAD_INPUT, TIMED_OUT, UNREACHABLE, CommandFailed
from muster_runtime.process.roles import Role
from muster_runtime.service import Service
from muster_runtime.settings import Settings
from tests.integration.runtime.core.looks import not_ready, ready
from tests.integration.runtime.core.probe.service import SCHEMA, build
from tests.integration.runtime.core.relays import write
from tests.support.databases import Databases
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner

NEEDED, OPTIONAL, LATER, CONTRACTING = "20980101000000", "20980102000000", "20990101000000", "20990102000001"

INSERT = "insert into schema_migrations (version) values ($1)"


@pytest.fixture
def newer(tmp_path: Path) -> Schema:
    """The probe of the next release: with a migration that it needs, and one that it can do without."""
    folder = tmp_path / "migrations"
    shutil.copytree(SCHEMA.migrations, folder)
    for version, tags in ((NEEDED, "-- muster: expand"), (OPTIONAL, "-- muster: expand\n-- muster: optional")):
        body = f"-- migrate:up\n\n{tags}\ncreate table t{version} ();\n\n-- migrate:down\n\ndrop table t{version};\n"
        (folder / f"{version}_next.sql").write_text(body, "utf-8")
    return Schema("probe", folder)


async def test_a_database_is_compared_and_waited_for(databases: Databases, newer: Schema) -> None:
    access = await databases.make("probe", SCHEMA.migrations)
    now = max(file.name.partition("_")[0] for file in RUNTIME_MIGRATIONS.glob("*.sql"))
    window = {"service": "probe", "schema_min": NEEDED, "schema_head": OPTIONAL}
    by_api = Settings(environment="sandbox", postgres_api_dsn=SecretStr(access.api_dsn))
    by_worker = Settings(environment="sandbox", postgres_worker_dsn=SecretStr(access.worker_dsn))
    by_owner = Settings(environment="sandbox", postgres_owner_dsn=SecretStr(access.owner_dsn))
    assert await describe(newer, by_api, database=False) == window
    behind = {**window, "database": now, "ahead": [], "contracted": [], "behind": [NEEDED, OPTIONAL]}
    for settings in (by_api, by_worker, by_owner):
        assert await describe(newer, settings, database=True) == behind
    with pytest.raises(CommandFailed, match=rf"^after 0 s the schema of probe is at {now} and lacks {NEEDED}: run the"):
        await wait(newer, by_api, 0, print)

    told: list[str] = []
    waiting = asyncio.create_task(wait(newer, by_worker, 30, told.append))
    admin = await asyncpg.connect(access.admin_dsn, server_settings={"search_path": "probe"})
    try:
        await admin.execute(INSERT, LATER)
        assert not waiting.done()
        await admin.execute(INSERT, NEEDED)
        assert await waiting == f"the schema of probe is at {LATER}, and {NEEDED} is needed"
        assert all(line.startswith("waiting: the schema of probe is at ") for line in told)
        compared = await describe(newer, by_owner, database=True)
        assert (compared["database"], compared["ahead"], compared["behind"]) == (LATER, [LATER], [OPTIONAL])

        await admin.execute(INSERT, CONTRACTING)
        assert (await describe(newer, by_owner, database=True))["contracted"] == [CONTRACTING]
        with pytest.raises(CommandFailed, match=f"^after 0 s the schema of probe is too new: {CONTRACTING} changed"):
            await wait(newer, by_worker, 0, print)
    finally:
        await admin.close()


@pytest.mark.parametrize(
    ("dsn", "status", "said"),
    [
        ("", BAD_INPUT, "MUSTER_POSTGRES_OWNER_DSN are not set: set one of them"),
        (
            "postgresql://probe_api:x@127.0.0.1:1/muster",
            UNREACHABLE,
            "MUSTER_POSTGRES_API_DSN: Postgres cannot be queried: ",
        ),
        ("postgresql://probe_api:[x@host/muster", BAD_INPUT, "MUSTER_POSTGRES_API_DSN is not a valid Postgres DSN"),
    ],
)
async def test_why_a_database_cannot_be_compared(newer: Schema, dsn: str, status: int, said: str) -> None:
    settings = Settings(environment="sandbox", postgres_api_dsn=SecretStr(dsn))
    with pytest.raises(CommandFailed, match=said) as failed:
        await describe(newer, settings, database=True)
    assert failed.value.exit_code == status
    with pytest.raises(CommandFailed, match=said) as waited:
        await wait(newer, settings, 0, print)
    assert waited.value.exit_code == (TIMED_OUT if status == UNREACHABLE else status)


async def test_readiness_tolerates_a_schema_within_the_window(run_service: ServiceRunner, newer: Schema) -> None:
    def of_next_release(settings: Settings) -> Service:
        return replace(build(settings), schema=newer)

    probe = await run_service(of_next_release, Settings, roles=frozenset({Role.API}))
    await eventually(lambda: ready(probe))
    await probe.admin.execute(INSERT, LATER)
    await probe.admin.execute("delete from schema_migrations where version = $1", OPTIONAL)
    await eventually(lambda: ready(probe))
    (warning,) = (await probe.client.get("/health/ready")).json()["warnings"]
    assert warning == f"migrations are pending: {OPTIONAL}; this process works without them"
    for about, warnings in (("schema", 1), ("secrets", 0)):
        labels = {"service": "probe", "about": about}
        assert REGISTRY.get_sample_value("muster_warnings", labels) == warnings

    await probe.admin.execute("delete from schema_migrations where version = any($1)", [NEEDED, LATER])
    await eventually(lambda: not_ready(probe, f"migrations are pending: {NEEDED}; the schema is at "))
    await eventually(lambda: not_ready(probe, f", and this process needs {NEEDED}"))


async def test_a_schema_that_has_contracted_is_too_new(run_service: ServiceRunner) -> None:
    """An older process takes no requests, and does not call its work wrong, until newer code or the backup is there."""
    probe = await run_service(build, Settings, roles=frozenset({Role.API}))
    await eventually(lambda: ready(probe))
    await probe.admin.execute(INSERT, LATER)
    await eventually(lambda: ready(probe))
    await probe.admin.execute(INSERT, CONTRACTING)
    head = SCHEMA.head
    reason = f"the schema is too new: {CONTRACTING} changed what this process uses; it knows up to {head}"
    await eventually(lambda: not_ready(probe, reason))
    # It still reports what waits.
    await write(probe, "GSA", "a")
    assert (await probe.client.get("/health/ready")).json()["outbox"]["rows"] == 1
    with pytest.raises(SchemaTooNew, match=f"^{CONTRACTING} changed what this process uses: run a newer version: "):
        async with probe.runtime.database.connection() as connection:
            await connection.fetch("select nothing_of_the_sort from outbox")

    await probe.admin.execute("delete from schema_migrations where version = $1", CONTRACTING)
    await eventually(lambda: ready(probe))


_MIGRATE = """
import sys
from pathlib import Path
from muster_runtime.cli import run
from muster_runtime.database.schema import Schema
run("no.bootstrap", Schema("probe", Path(sys.argv.pop())))
"""


async def test_a_migration_that_gets_sigterm_is_undone_and_ends_with_dbmate(
    databases: Databases, newer: Schema
) -> None:
    access = await databases.make("probe", SCHEMA.migrations)
    slow = newer.migrations / f"{NEEDED}_next.sql"
    created = f"create table t{NEEDED} ();"
    slow.write_text(
        slow.read_text("utf-8").replace(created, f"{created}\nselect pg_advisory_xact_lock(4711);"), "utf-8"
    )
    admin = await asyncpg.connect(access.admin_dsn, server_settings={"search_path": "probe"})
    try:
        await admin.execute("select pg_advisory_lock(4711)")
        migrating = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _MIGRATE, "migrate", str(newer.migrations)),
            env={"MUSTER_ENVIRONMENT": "sandbox", "MUSTER_POSTGRES_OWNER_DSN": access.owner_dsn},
        )
        waits = "select true from pg_stat_activity where datname = current_database() and wait_event = 'advisory'"
        await eventually(lambda: admin.fetchval(waits))
        (dbmate,) = psutil.Process(migrating.pid).children()
        migrating.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(migrating.wait(), 10) == 130
        assert not dbmate.is_running() or dbmate.status() == psutil.STATUS_ZOMBIE  # nobody has asked how it ended

        await admin.execute("select pg_advisory_unlock(4711)")
        others = (
            "select count(*) = 0 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        )
        await eventually(lambda: admin.fetchval(others))
        assert not await admin.fetchval("select to_regclass($1)", f"t{NEEDED}")
        assert not await admin.fetchval("select true from schema_migrations where version = $1", NEEDED)
        await asyncio.to_thread(migrate, access.owner_dsn, "probe", newer.migrations)
        assert await admin.fetchval("select true from schema_migrations where version = $1", NEEDED)
    finally:
        await admin.close()

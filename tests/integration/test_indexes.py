"""Indexes that migrations build concurrently: a try that fails leaves an invalid one, which the next try mends."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from muster_contracts import SERVICES
from muster_local.programs import migrations_of
from muster_operator.databases.provisioning import Access, drop, password_of, provision
from muster_runtime.database import dbmate, schema

# The services that have the file; the runtime's migrations are every service's.
CONCURRENT = [
    (service, file)
    for service, folder in (("billing", schema.RUNTIME_MIGRATIONS), *((name, migrations_of(name)) for name in SERVICES))
    for file in sorted(folder.glob("*.sql"))
    if "index concurrently" in file.read_text("utf-8").partition("-- migrate:down")[0]
]


@pytest.fixture
async def database(postgres: str, topic_prefix: str) -> AsyncIterator[str]:
    name = topic_prefix.rstrip(".")
    yield name
    await drop(postgres, name)


async def migrate_up_to(
    access: Access, service: str, version: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apply the migrations up to a version, that one included."""
    for source, name in ((migrations_of(service), "service"), (schema.RUNTIME_MIGRATIONS, "runtime")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file in source.glob("*.sql"):
            if file.name.partition("_")[0] <= version:
                shutil.copy(file, folder / name)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "RUNTIME_MIGRATIONS", folder / "runtime")
        await asyncio.to_thread(dbmate.migrate, access.owner_dsn, service, folder / "service")


@pytest.mark.parametrize(("service", "file"), CONCURRENT, ids=lambda value: getattr(value, "stem", value))
async def test_a_failed_try_is_mended_by_the_next(
    service: str, file: Path, postgres: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = re.findall(
        r"create (?:unique )?index concurrently if not exists (\w+)\s+on (\w+)", file.read_text("utf-8")
    )
    ((index, table),) = created
    version = file.name.partition("_")[0]
    access = await provision(postgres, database, service, password_of(postgres))
    await migrate_up_to(access, service, str(int(version) - 1), tmp_path, monkeypatch)
    admin = await asyncpg.connect(access.admin_dsn, server_settings={"search_path": service})
    try:
        await admin.execute(f"alter role {service}_owner in database \"{database}\" set lock_timeout = '200ms'")
        # As a command that changes the table for longer than a migration waits.
        async with admin.transaction():
            await admin.execute(f"lock table {table} in row exclusive mode")
            for _ in range(2):  # the second try meets what the first one left
                with pytest.raises(dbmate.MigrationFailed, match="lock timeout"):
                    await migrate_up_to(access, service, version, tmp_path, monkeypatch)
        assert await _invalid(admin) != []
        await asyncio.to_thread(dbmate.migrate, access.owner_dsn, service, migrations_of(service))
        assert await _invalid(admin) == []
        assert await admin.fetchval("select to_regclass($1) is not null", index)
    finally:
        await admin.close()


async def _invalid(connection: "asyncpg.Connection[Any]") -> list[str]:
    rows = await connection.fetch("select indexrelid::regclass::text from pg_index where not indisvalid")
    return [row[0] for row in rows]

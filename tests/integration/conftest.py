"""Each service's schema, and upgrades of a database that holds data."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from muster_contracts import SERVICES
from muster_local.programs import migrations_of
from muster_operator.databases.provisioning import Access, drop, password_of, provision
from muster_runtime.database import dbmate, schema

# The last version of the release before.
BEFORE = "20250808000000"

Upgrade = Callable[..., Any]


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def access(service: str, service_database: Callable[..., Awaitable[Access]]) -> Access:
    return await service_database(service)


@pytest.fixture
async def admin(access: Access) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(access.admin_dsn)
    yield connection
    await connection.close()


@pytest.fixture
def upgraded(postgres: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Upgrade:
    """`async with upgraded(service, sql) as connection`: the older schema with rows in it, migrated to the newest.

    `before` is the first version that the older schema lacks.
    """

    @asynccontextmanager
    async def upgrade(service: str, sql: str, before: str = BEFORE) -> AsyncIterator["asyncpg.Connection[Any]"]:
        database = topic_prefix.rstrip(".")
        access: Access = await provision(postgres, database, service, password_of(postgres))
        try:
            older = tmp_path / "older"
            for source, name in ((migrations_of(service), "service"), (schema.RUNTIME_MIGRATIONS, "runtime")):
                (older / name).mkdir(parents=True)
                for file in source.glob("*.sql"):
                    if file.name < before:
                        shutil.copy(file, older / name)
            with monkeypatch.context() as patch:
                patch.setattr(schema, "RUNTIME_MIGRATIONS", older / "runtime")
                await asyncio.to_thread(dbmate.migrate, access.owner_dsn, service, older / "service")
            connection = await asyncpg.connect(access.admin_dsn, server_settings={"search_path": service})
            await connection.execute(sql)
            await asyncio.to_thread(dbmate.migrate, access.owner_dsn, service, migrations_of(service))
            try:
                yield connection
            finally:
                await connection.close()
        finally:
            await drop(postgres, database)

    return upgrade


async def is_forced(connection: "asyncpg.Connection[Any]", *tables: str) -> bool:
    """Whether row-level security is forced on all of these tables again."""
    found = await connection.fetch("select relforcerowsecurity from pg_class where relname = any($1)", tables)
    return [row[0] for row in found] == [True] * len(tables)

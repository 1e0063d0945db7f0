"""A separate database for each test, cloned from a template that is migrated once per content of the migrations."""

import asyncio
import hashlib
import secrets
from collections.abc import Iterable
from pathlib import Path

import asyncpg

from muster_operator.databases.provisioning import Access, clone, drop, password_of, provision
from muster_runtime.database.dbmate import migrate
from muster_runtime.database.schema import RUNTIME_MIGRATIONS

SOURCES = Path(__file__).parents[2] / "services"


class Databases:
    """Creates databases on one server, and drops them all at the end."""

    def __init__(self, admin_dsn: str) -> None:
        self._admin_dsn = admin_dsn
        self._secret = password_of(admin_dsn)
        self._made: list[str] = []

    async def make(self, service: str, migrations: Path | None = None) -> Access:
        """Create a database with a service's migrated schema; `migrations` defaults to the service's own."""
        directory = migrations or SOURCES / service / f"muster_{service}" / "migrations"
        template = await self._template(service, directory)
        database = f"test_{service}_{secrets.token_hex(6)}"
        access = await clone(self._admin_dsn, template, database, service, self._secret)
        self._made.append(database)
        return access

    async def drop_all(self) -> None:
        """Drop the created databases."""
        for database in self._made:
            await drop(self._admin_dsn, database)

    async def _template(self, service: str, directory: Path) -> str:
        """The name of the migrated template. The first caller creates it; the others wait."""
        template = f"template_{service}_{_fingerprint(directory)}"
        connection = await asyncpg.connect(self._admin_dsn)
        try:
            await connection.execute("select pg_advisory_lock(hashtext($1))", template)
            if not await connection.fetchval("select true from pg_database where datname = $1", template):
                unfinished = f"{template}_unfinished"
                await drop(self._admin_dsn, unfinished)
                access = await provision(self._admin_dsn, unfinished, service, self._secret)
                await asyncio.to_thread(migrate, access.owner_dsn, service, directory)
                # The final name proves that it is complete.
                await connection.execute(f'alter database "{unfinished}" rename to "{template}"')
        finally:
            await connection.close()
        return template


def _fingerprint(directory: Path) -> str:
    """A hash of every migration's name and content, so that a stale template is never used."""
    digest = hashlib.sha256()
    for file in _migrations((RUNTIME_MIGRATIONS, directory)):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _migrations(directories: Iterable[Path]) -> list[Path]:
    return sorted(file for directory in directories for file in directory.glob("*.sql"))

"""Migrations by dbmate: the runtime's tables and a service's own, into the service's schema."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
from pydantic import SecretStr

from muster_runtime.database.connections import Connection
from muster_runtime.database.sessions import NO_ADDRESS
from muster_runtime.errors import RetryableError

RUNTIME_MIGRATIONS = Path(__file__).parent.parent / "migrations"

# How Postgres names the copies that a failed `reindex concurrently` leaves behind.
_COPY = re.compile(r"_cc(new|old)\d*\"?$")


class MigrationFailed(Exception):
    """A migration was refused; the message is what dbmate said."""


class MigrationsMissing(Exception):
    """The package was installed without its migrations: it is not known whether any is pending."""


class MigrationsPending(RetryableError):
    """The code is ahead of its schema: what fails for that is no work's fault, and succeeds after the migration."""

    def __init__(self, versions: Sequence[str], error: Exception) -> None:
        super().__init__(f"{', '.join(versions)}: run the migrations; until then: {error}")


def migrate(owner_dsn: SecretStr | str, schema: str, directory: Path) -> None:
    """Apply what is pending, as the owner role.

    Raises MigrationFailed; each file is a transaction of its own, so that what came before it stays applied, or, where
    it builds an index concurrently, repeatable. Raises MigrationsMissing where this installation came without them.
    """
    _versions(directory)
    beside_python = Path(sys.executable).parent / "dbmate"
    dbmate = str(beside_python) if beside_python.exists() else shutil.which("dbmate")
    if dbmate is None:
        raise MigrationFailed("dbmate is not installed")
    dsn = owner_dsn if isinstance(owner_dsn, str) else owner_dsn.get_secret_value()
    if not dsn:
        raise MigrationFailed("MUSTER_POSTGRES_OWNER_DSN is not set")
    try:
        address = _with_schema(dsn, schema)
        asyncio.run(_repair_indexes(address))
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise MigrationFailed(f"{type(error).__name__}: {error}") from None
    except ValueError:  # its message may quote a part of the password
        raise MigrationFailed(f"MUSTER_POSTGRES_OWNER_DSN is {NO_ADDRESS}") from None
    done = subprocess.run(
        [
            dbmate,
            *("--migrations-dir", str(RUNTIME_MIGRATIONS), "--migrations-dir", str(directory)),
            *("--migrations-table", f"{schema}.schema_migrations", "--no-dump-schema", "migrate"),
        ],
        # By environment, since arguments can be read by every user of the machine.
        env={**os.environ, "DATABASE_URL": address},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise MigrationFailed((done.stderr or done.stdout).strip())


async def _repair_indexes(address: str) -> None:
    """Build the indexes that a failed try left invalid.

    `create index concurrently if not exists` would take such an index for its own, which no query ever uses.
    """
    connection = await asyncpg.connect(address)
    try:
        invalid = await connection.fetch(
            """
            select format('%I', c.relname) as name
            from pg_index as i
            join pg_class as c on c.oid = i.indexrelid
            where c.relnamespace = current_schema()::regnamespace and not i.indisvalid
            """
        )
        for (name,) in invalid:
            if _COPY.search(name):
                await connection.execute(f"drop index concurrently if exists {name}")
            else:
                await connection.execute(f"reindex index concurrently {name}")
    finally:
        await connection.close()


async def unapplied(connection: Connection, directory: Path) -> list[str]:
    """The versions that the schema lacks, as the worker role may see it: without the owner's address.

    Raises MigrationsMissing where this installation came without its migrations.
    """
    versions = _versions(directory)
    try:
        rows = await connection.fetch("select version from schema_migrations")
    except (asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError):
        rows = []  # the migration that grants the right is itself not applied
    return sorted(versions - {row["version"] for row in rows})


def _versions(directory: Path) -> set[str]:
    """The versions that this installation came with. Raises MigrationsMissing where it came without."""
    versions: set[str] = set()
    for folder in (RUNTIME_MIGRATIONS, directory):
        found = {file.name.partition("_")[0] for file in folder.glob("*.sql")}
        if not found:
            raise MigrationsMissing(f"{folder} holds no migrations: install the package again")
        versions |= found
    return versions


def _with_schema(dsn: str, schema: str) -> str:
    parts = urlsplit(dsn)
    # dbmate's driver insists on TLS unless told otherwise; a DSN that asks for it keeps its own word.
    query = {"sslmode": "disable"} | dict(parse_qsl(parts.query)) | {"search_path": schema}
    return urlunsplit(parts._replace(scheme="postgres", query=urlencode(query)))

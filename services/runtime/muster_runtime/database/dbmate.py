"""Runs migrations with dbmate: the runtime's tables and a service's own, in the service's schema."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import asyncpg
from pydantic import SecretStr

from muster_runtime.database import schema as schemas
from muster_runtime.database.sessions import NO_ADDRESS, Address

# The suffix of the copies that a failed `reindex concurrently` leaves behind.
_COPY = re.compile(r"_cc(new|old)\d*\"?$")

# What keeps a session from starting.
_UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.TargetServerAttributeNotMatched,
)


class MigrationFailed(Exception):
    """A migration failed; the message is dbmate's."""


def migrate(owner_dsn: SecretStr | str, schema: str, directory: Path) -> None:
    """Apply pending migrations as the owner role.

    Raises MigrationFailed. Each file is its own transaction, so earlier files stay applied; a file that builds an index
    concurrently can be repeated. Raises MigrationsMissing if this installation has no migrations.
    """
    schemas.files_of(directory)
    beside_python = Path(sys.executable).parent / "dbmate"
    dbmate = str(beside_python) if beside_python.exists() else shutil.which("dbmate")
    if dbmate is None:
        raise MigrationFailed("dbmate is not installed")
    dsn = owner_dsn if isinstance(owner_dsn, str) else owner_dsn.get_secret_value()
    if not dsn:
        raise MigrationFailed("MUSTER_POSTGRES_OWNER_DSN is not set")
    try:
        dsn = _with_schema(dsn, schema)
        address = Address(dsn)
        asyncio.run(_repair_indexes(address))
    except _UNREACHABLE as error:
        raise MigrationFailed(f"Postgres at {_servers_of(dsn)}: {type(error).__name__}: {error}") from None
    except ValueError:  # its message may quote part of the password
        raise MigrationFailed(f"MUSTER_POSTGRES_OWNER_DSN is {NO_ADDRESS}") from None
    done = subprocess.run(
        [
            dbmate,
            *("--migrations-dir", str(schemas.RUNTIME_MIGRATIONS), "--migrations-dir", str(directory)),
            *("--migrations-table", f"{schema}.schema_migrations", "--no-dump-schema", "migrate"),
        ],
        # Passed in the environment, because every user of the machine can read arguments.
        env={**os.environ, "DATABASE_URL": _for_dbmate(dsn, address.server)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise MigrationFailed((done.stderr or done.stdout).strip())


async def _repair_indexes(address: Address) -> None:
    """Rebuild the indexes that a failed migration left invalid.

    `create index concurrently if not exists` would accept an invalid index as existing, but no query ever uses it.
    """
    connection = await address.connect()
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


def _with_schema(dsn: str, schema: str) -> str:
    parts = urlsplit(dsn)
    # dbmate's driver requires TLS by default; a DSN that sets sslmode keeps it.
    query = {"sslmode": "disable"} | dict(parse_qsl(parts.query)) | {"search_path": schema}
    return urlunsplit(parts._replace(scheme="postgres", query=urlencode(query)))


def _servers_of(dsn: str) -> str:
    return urlsplit(dsn).netloc.rpartition("@")[2]


def _for_dbmate(dsn: str, server: str) -> str:
    """A DSN with one of its servers, and escaped: dbmate takes a single server, and fewer characters as they are."""
    parts = urlsplit(dsn)
    credentials, at, _ = parts.netloc.rpartition("@")
    escaped = ":".join(quote(unquote(part), safe="") for part in credentials.split(":", 1))
    return urlunsplit(parts._replace(netloc=f"{escaped}{at}{server}"))

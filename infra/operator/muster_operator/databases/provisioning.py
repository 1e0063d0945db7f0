"""Creates the services' databases, schemas, and roles as an administrator. Safe for concurrent callers."""

import hashlib
import hmac
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from muster_operator.databases.reading import connected
from muster_operator.databases.steps import ROLES, Administrator, Step, Wanted, cluster_steps, inside_steps, quoted
from muster_operator.failures import Refused

# Roles belong to the whole cluster, so creating or changing one requires this advisory lock.
_LOCK = 0x4D757374  # "Must"


@dataclass(frozen=True)
class Access:
    """The DSNs of one service's database: the superuser's and one for each role."""

    admin_dsn: str
    owner_dsn: str
    api_dsn: str
    worker_dsn: str


@asynccontextmanager
async def locked(admin_dsn: str) -> AsyncIterator[None]:
    """A block that runs while no other caller creates or changes roles."""
    async with connected(admin_dsn) as connection:
        await connection.execute("select pg_advisory_lock($1)", _LOCK)
        yield


async def plan(admin_dsn: str, wanted: Wanted) -> Sequence[Step]:
    """The statements that `apply` would execute. Raises Refused."""
    async with connected(admin_dsn) as connection:
        outside = await cluster_steps(connection, await Administrator.read(connection), wanted)
        exists = await connection.fetchval("select true from pg_database where datname = $1", wanted.database)
    if not exists:
        return [*outside, *await inside_steps(None, wanted)]
    async with connected(address(admin_dsn, wanted.database)) as inside:
        return [*outside, *await inside_steps(inside, wanted)]


async def apply(admin_dsn: str, wanted: Wanted) -> Sequence[Step]:
    """Create what a service's roles, database, and schema lack; return what was done. Raises Refused.

    Nobody else may connect to the database or create anything in it. The worker may create temporary tables.
    """
    async with locked(admin_dsn):
        return await apply_locked(admin_dsn, wanted)


async def apply_locked(admin_dsn: str, wanted: Wanted) -> Sequence[Step]:
    """What `apply` does, for a caller that holds the lock."""
    async with connected(admin_dsn) as connection:
        outside = await cluster_steps(connection, await Administrator.read(connection), wanted)
        await _execute(connection, outside)
        async with connected(address(admin_dsn, wanted.database)) as within:
            inside = await inside_steps(within, wanted)
            await _execute(within, inside)
    return [*outside, *inside]


async def provision(admin_dsn: str, database: str, service: str, secret: str) -> Access:
    """Create what a service's roles, database, and schema lack. Raises Refused.

    The roles' passwords are derived from `secret`, so that callers that share a cluster agree on them.
    """
    roles = Wanted(service, database, {}).roles
    await apply(admin_dsn, Wanted(service, database, {role: _password(secret, role) for role in roles}))
    return access_to(admin_dsn, database, service, secret)


async def clone(admin_dsn: str, template: str, database: str, service: str, secret: str) -> Access:
    """Copy a provisioned and migrated database."""
    async with connected(admin_dsn) as connection:
        await connection.execute(f"create database {quoted(database)} template {quoted(template)}")
        wanted = Wanted(service, database, {})
        await _execute(connection, await cluster_steps(connection, await Administrator.read(connection), wanted))
    return access_to(admin_dsn, database, service, secret)


async def drop(admin_dsn: str, database: str) -> None:
    """Drop a database, even if someone is still connected to it."""
    async with connected(admin_dsn) as connection:
        await connection.execute(f"drop database if exists {quoted(database)} with (force)")


def access_to(admin_dsn: str, database: str, service: str, secret: str) -> Access:
    """The DSNs of a service's database, whether or not it exists."""
    owner, api, worker = (
        address(admin_dsn, database, f"{service}_{role}", _password(secret, f"{service}_{role}")) for role in ROLES
    )
    return Access(address(admin_dsn, database), owner, api, worker)


def password_of(dsn: str) -> str:
    """The password in a DSN; empty if it has none."""
    return urlsplit(dsn).password or ""


def address(admin_dsn: str, database: str, role: str | None = None, password: str = "") -> str:
    """The DSN of a database on the administrator's server, by default for the administrator."""
    parts = urlsplit(admin_dsn)
    credentials = f"{quote(role, safe='')}:{quote(password, safe='')}" if role is not None else ""
    netloc = parts.netloc if role is None else f"{credentials}@{parts.netloc.rpartition('@')[2]}"
    return urlunsplit(parts._replace(netloc=netloc, path="/" + quote(database)))


async def _execute(connection: "asyncpg.Connection[Any]", steps: Sequence[Step]) -> None:
    for step in steps:
        try:
            await connection.execute(step.sql)
        except asyncpg.InsufficientPrivilegeError as error:
            raise Refused(f"Postgres refused: {step.shown}: {error}") from None


def _password(secret: str, role: str) -> str:
    return hmac.new(secret.encode(), role.encode(), hashlib.sha256).hexdigest()

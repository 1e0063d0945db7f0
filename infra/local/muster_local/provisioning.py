"""Databases, schemas and roles for the services: made by the superuser, and safe for several callers at once."""

import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

# Roles belong to the whole cluster: whoever makes or changes one holds this advisory lock.
_LOCK = 0x4D757374  # "Must"

_ROLES = ("owner", "api", "worker")


@dataclass(frozen=True)
class Access:
    """The addresses of one service's database: the superuser's and one for each of its roles."""

    admin_dsn: str
    owner_dsn: str
    api_dsn: str
    worker_dsn: str


async def provision(admin_dsn: str, database: str, service: str, secret: str) -> Access:
    """Make a service's roles, its database and its schema where they are missing.

    The roles' passwords are derived from `secret`, so that callers who share a cluster agree on them.
    Nobody else may connect to the database or create a thing in it; the worker may create temporary tables.
    """
    access = access_to(admin_dsn, database, service, secret)
    async with _administer(admin_dsn) as connection:
        for role in _ROLES:
            await _ensure_role(connection, f"{service}_{role}", _password(secret, f"{service}_{role}"))
        # Whose snapshots are old: a function of the owner's tells the worker how old, and no more.
        await connection.execute(f"grant pg_read_all_stats to {_quoted(f'{service}_owner')}")
        if not await connection.fetchval("select true from pg_database where datname = $1", database):
            await connection.execute(f"create database {_quoted(database)}")
        await _admit(connection, database, service)
        schema, owner = _quoted(service), _quoted(f"{service}_owner")
        inside = await asyncpg.connect(access.admin_dsn)
        try:
            await inside.execute("revoke all on schema public from public")
            await inside.execute(f"create schema if not exists {schema} authorization {owner}")
        finally:
            await inside.close()
    return access


async def clone(admin_dsn: str, template: str, database: str, service: str, secret: str) -> Access:
    """Make a database that is a copy of a provisioned and migrated one."""
    connection = await asyncpg.connect(admin_dsn)
    try:
        await connection.execute(f"create database {_quoted(database)} template {_quoted(template)}")
        await _admit(connection, database, service)
    finally:
        await connection.close()
    return access_to(admin_dsn, database, service, secret)


async def drop(admin_dsn: str, database: str) -> None:
    """Drop a database, whoever is still connected to it."""
    connection = await asyncpg.connect(admin_dsn)
    try:
        await connection.execute(f"drop database if exists {_quoted(database)} with (force)")
    finally:
        await connection.close()


def access_to(admin_dsn: str, database: str, service: str, secret: str) -> Access:
    """The addresses of a service's database, whether or not it has been made."""
    owner, api, worker = (
        _address(admin_dsn, database, f"{service}_{role}", _password(secret, f"{service}_{role}")) for role in _ROLES
    )
    return Access(_address(admin_dsn, database), owner, api, worker)


def password_of(dsn: str) -> str:
    """The password in an address; empty when it has none."""
    return urlsplit(dsn).password or ""


async def _ensure_role(connection: "asyncpg.Connection[Any]", role: str, password: str) -> None:
    if not await connection.fetchval("select true from pg_roles where rolname = $1", role):
        await connection.execute(f"create role {_quoted(role)}")
    await connection.execute(
        f"alter role {_quoted(role)} login nosuperuser nocreatedb nocreaterole nobypassrls password '{password}'"
    )


async def _admit(connection: "asyncpg.Connection[Any]", database: str, service: str) -> None:
    """Let the service's roles, and nobody else, connect; these rights are not copied with a template."""
    roles = ", ".join(_quoted(f"{service}_{role}") for role in _ROLES)
    await connection.execute(f"revoke all on database {_quoted(database)} from public")
    await connection.execute(f"grant connect on database {_quoted(database)} to {roles}")
    # A rebuild of a projection keeps what it reads in a temporary table.
    await connection.execute(f"grant temporary on database {_quoted(database)} to {_quoted(f'{service}_worker')}")
    for role in _ROLES:
        await connection.execute(
            f"alter role {_quoted(f'{service}_{role}')} in database {_quoted(database)} "
            f"set search_path = {_quoted(service)}"
        )
    # A migration that waits for a lock makes all that come after it wait as well.
    owner = _quoted(f"{service}_owner")
    await connection.execute(f"alter role {owner} in database {_quoted(database)} set lock_timeout = '5s'")


@asynccontextmanager
async def _administer(admin_dsn: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(admin_dsn)
    try:
        await connection.execute("select pg_advisory_lock($1)", _LOCK)
        yield connection
    finally:
        await connection.close()


def _password(secret: str, role: str) -> str:
    return hmac.new(secret.encode(), role.encode(), hashlib.sha256).hexdigest()


def _address(admin_dsn: str, database: str, role: str | None = None, password: str = "") -> str:
    parts = urlsplit(admin_dsn)
    netloc = parts.netloc if role is None else f"{role}:{password}@{parts.netloc.rpartition('@')[2]}"
    return urlunsplit(parts._replace(netloc=netloc, path="/" + quote(database)))


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'

"""Compares a service's code with its database: describes the schema, or waits for it."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import asyncpg

from muster_runtime.database.schema import Compared, Schema
from muster_runtime.database.sessions import NO_ADDRESS, Address, configure
from muster_runtime.exit_statuses import BAD_INPUT, TIMED_OUT, UNREACHABLE, CommandFailed
from muster_runtime.settings import Settings

# How long Postgres may take to accept a session.
CONNECT_SECONDS = 5.0

# How often `wait` asks the database, and how often it reports that it is still waiting.
ASK_SECONDS = 0.5
TELL_SECONDS = 5.0

# The settings whose address can be used, in the order in which they are tried.
_DSNS = ("postgres_worker_dsn", "postgres_api_dsn", "postgres_owner_dsn")


async def describe(schema: Schema, settings: Settings, *, database: bool) -> dict[str, Any]:
    """The code's schema window, and with `database` the database's state. Raises CommandFailed, MigrationsMissing."""
    window = {"service": schema.name, "schema_min": schema.minimum, "schema_head": schema.head}
    if not database:
        return window
    compared = await _compare(schema, *_address(settings))
    found = {"database": compared.database, "ahead": compared.ahead, "contracted": compared.contracted}
    return {**window, **found, "behind": compared.behind}


async def wait(schema: Schema, settings: Settings, seconds: float, tell: Callable[[str], None]) -> str:
    """Wait until the database has what the code needs; returns what it has, in words.

    `tell` gets a line every few seconds. Raises CommandFailed, with TIMED_OUT after `seconds`.
    """
    setting, address = _address(settings)
    end = time.monotonic() + seconds
    told_at = -TELL_SECONDS
    while True:
        try:
            compared = await _compare(schema, setting, address)
        except CommandFailed as failed:
            if failed.exit_code != UNREACHABLE:
                raise
            reason = str(failed)
        else:
            if compared.fits:
                return f"the schema of {schema.name} is at {compared.database}, and {schema.minimum} is needed"
            reason = _mismatch(schema, compared)
        now = time.monotonic()
        if now >= end:
            raise CommandFailed(f"after {seconds:g} s {reason}", TIMED_OUT)
        if now >= told_at + TELL_SECONDS:
            told_at = now
            tell(f"waiting: {reason}")
        await asyncio.sleep(min(ASK_SECONDS, end - now))


def _mismatch(schema: Schema, compared: Compared) -> str:
    if newer := ", ".join(compared.contracted):
        return (
            f"the schema of {schema.name} is too new: {newer} changed what this version uses; it knows up to "
            f"{schema.head}: run a newer version"
        )
    return (
        f"the schema of {schema.name} is at {compared.database or 'no version'} and lacks "
        f"{', '.join(compared.needed)}: run the migrations of this version"
    )


def _address(settings: Settings) -> tuple[str, Address]:
    """The first setting that has an address, and the address."""
    for name in _DSNS:
        dsn = getattr(settings, name)
        if dsn.get_secret_value():
            return f"MUSTER_{name.upper()}", Address(dsn)
    names = " and ".join(f"MUSTER_{name.upper()}" for name in _DSNS)
    raise CommandFailed(f"{names} are not set: set one of them", BAD_INPUT)


async def _compare(schema: Schema, setting: str, address: Address) -> Compared:
    try:
        connection = await address.connect(timeout=CONNECT_SECONDS)
        try:
            await configure(connection, {"search_path": schema.name})
            return await schema.compare(connection)
        finally:
            await connection.close(timeout=CONNECT_SECONDS)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        failure = address.refusal or f"Postgres cannot be queried: {error or type(error).__name__}"
        reason, _, _ = failure.partition("\n")
        raise CommandFailed(f"{setting}: {reason}", UNREACHABLE) from None
    except ValueError:  # its message may quote part of the password
        raise CommandFailed(f"{setting} is {NO_ADDRESS}", BAD_INPUT) from None

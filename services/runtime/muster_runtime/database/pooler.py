"""Detects a connection pooler that does not keep a server connection for each session."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
from pydantic import SecretStr

from muster_runtime.database.sessions import Address

# With several idle server connections, one round can miss that sessions share them.
_ROUNDS = 5

# How long to wait for two sessions.
WAIT_SECONDS = 10

_CLOSE_SECONDS = 2


async def shares_connections(dsn: SecretStr | str) -> bool:
    """Whether several sessions use one server connection, as in PgBouncer's transaction mode.

    Raises TimeoutError, or the driver's error, if the address does not serve two sessions.
    """
    async with AsyncExitStack() as stack, asyncio.timeout(WAIT_SECONDS):
        address = Address(dsn)
        first = await _connect(address, stack)
        backend = await _backend(first)
        # At connect, Postgres sends the ID of the process that serves the client; a pooler sends a random number.
        if backend == first.get_server_pid():
            return False
        second = await _connect(address, stack)
        for _ in range(_ROUNDS):
            async with second.transaction():
                if await _backend(second) == backend or await _backend(first) != backend:
                    return True
        return False


async def _connect(address: Address, stack: AsyncExitStack) -> "asyncpg.Connection[Any]":
    """Connect without named prepared statements, which would stay on the server connection."""
    connection = await address.connect(statement_cache_size=0)
    stack.push_async_callback(connection.close, timeout=_CLOSE_SECONDS)
    return connection


async def _backend(connection: "asyncpg.Connection[Any]") -> int:
    """The ID of the server process that runs a transaction."""
    async with connection.transaction():
        backend: int = await connection.fetchval("select pg_backend_pid()")
    return backend

"""Connections to the database that MUSTER_ADMIN_DSN names, also with read access to a service's schema only."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from muster_operator.failures import BadInput
from muster_runtime.database.sessions import NO_ADDRESS

# Stands for a service's name in MUSTER_ADMIN_DSN if each service has its own database.
SERVICE = "{service}"

# The server's function that refuses a query if row_security is off and the role may not see every row.
_ROW_SECURITY = "check_enable_rls"


@asynccontextmanager
async def reading(admin_dsn: str, service: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """A connection that can only read a service's schema, but all of it.

    Requires the primary: a standby may lag behind. Raises BadInput if row-level security would hide rows.
    """
    settings = {"search_path": service, "default_transaction_read_only": "on", "row_security": "off"}
    try:
        async with connected(
            admin_dsn.replace(SERVICE, service),
            server_settings=settings,
            target_session_attrs=SessionAttribute.primary,
        ) as connection:
            yield connection
    except asyncpg.InsufficientPrivilegeError as error:
        if error.server_source_function == _ROW_SECURITY:
            rule = "its role must bypass row-level security (bypassrls) to see every agency's rows"
            raise BadInput(f"MUSTER_ADMIN_DSN: {rule}") from None
        raise


@asynccontextmanager
async def connected(dsn: str, **options: Any) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """A connection that closes with the block. Raises BadInput for a DSN that cannot be parsed."""
    try:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(dsn, **options)
    except ValueError:  # its message may contain part of the password
        raise BadInput(f"MUSTER_ADMIN_DSN is {NO_ADDRESS}") from None
    try:
        yield connection
    finally:
        await connection.close()

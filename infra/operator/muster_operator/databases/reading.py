"""Read access to the services' schemas, each in the database that MUSTER_ADMIN_DSN names."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from asyncpg.connect_utils import SessionAttribute

# Stands for a service's name in MUSTER_ADMIN_DSN if each service has its own database.
SERVICE = "{service}"


@asynccontextmanager
async def reading(admin_dsn: str, service: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """A connection that can only read a service's schema. Requires the primary: a standby may lag behind."""
    connection = await asyncpg.connect(
        admin_dsn.replace(SERVICE, service),
        server_settings={"search_path": service, "default_transaction_read_only": "on"},
        target_session_attrs=SessionAttribute.primary,
    )
    try:
        yield connection
    finally:
        await connection.close()

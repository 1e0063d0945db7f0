"""Runs statements that may run twice, such as reads: they are sent again if their connection is lost."""

from typing import Any

import asyncpg
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

from muster_runtime.database.transactions import Database

# Another connection may still work. If the server is down, all of them fail at once.
ATTEMPTS = 3

LOST = (ConnectionError, asyncpg.ConnectionDoesNotExistError, asyncpg.ConnectionFailureError)


async def fetch(database: Database, statement: str, *arguments: object) -> list[Any]:
    """The rows of one statement, outside of any transaction."""
    return await AsyncRetrying(retry=retry_if_exception_type(LOST), stop=stop_after_attempt(ATTEMPTS), reraise=True)(
        _fetch, database, statement, *arguments
    )


async def _fetch(database: Database, statement: str, *arguments: object) -> list[Any]:
    async with database.connection() as connection:
        return await connection.fetch(statement, *arguments)

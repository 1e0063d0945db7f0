"""How Postgres plans to find what a query asks for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Explaining:
    """A connection that asks how Postgres would answer, with EXPLAIN and its `options`, and finds nothing."""

    connection: Any
    options: str = ""
    plan: str = ""

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        rows = await self.connection.fetch(f"explain {self.options} {statement}", *arguments)
        self.plan = "\n".join(row[0] for row in rows)
        return []


@asynccontextmanager
async def reading(admin: Any, agency_id: str) -> AsyncIterator[None]:
    """An administrator's transaction that sees what the API sees of an agency; `*` is all agencies."""
    async with admin.transaction():
        schema = await admin.fetchval("select current_schema()")
        await admin.execute(f"set local role {schema}_api")
        await admin.execute("select set_config('muster.agency', $1, true)", agency_id)
        yield

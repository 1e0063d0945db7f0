"""The routes that list the audit, and who read whose personal data."""

import json
from functools import cache
from typing import Annotated, Any

import asyncpg
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from muster_contracts import Instant
from muster_runtime.database.connections import Connection
from muster_runtime.http.auth import requires
from muster_runtime.http.pagination import PageDep
from muster_runtime.http.problem_responses import COMMON
from muster_runtime.http.tenancy import Reader, ReaderDep
from muster_runtime.identifiers import EVERY_AGENCY
from muster_runtime.pagination import Page, Pagination

# The columns of each table that its entries show.
_COLUMNS = {
    "audit": """
        id, readable_instant(recorded_at) as recorded_at, agency_id, actor, command, subject, reason, before, after,
        request_id, correlation_id
    """,
    "personal_read": "id, readable_instant(read_at) as read_at, agency_id, actor, route, subject_refs, request_id",
}

AgencyQuery = Annotated[str | None, Query(description="Default: every agency that the token acts for.")]


class AuditEntry(BaseModel):
    """A command that was executed."""

    id: int
    recorded_at: Instant | None = Field(description="null if the stored date is not in the years 2000 to 9999.")
    agency_id: str
    actor: str
    command: str
    subject: str | None
    reason: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None
    correlation_id: str


class PersonalReadEntry(BaseModel):
    """A request whose response contained people's names or addresses."""

    id: int
    read_at: Instant | None = Field(description="null if the stored date is not in the years 2000 to 9999.")
    agency_id: str
    actor: str
    route: str = Field(examples=["GET /v1/agencies/{agency_id}/seats"])
    subject_refs: list[str] = Field(description="The people whose names or addresses it contained.")
    request_id: str | None


@cache
def audit_router(service: str) -> APIRouter:
    """The routes of one service. The lists are oldest first."""
    router = APIRouter(prefix="/v1", tags=["audit"], dependencies=[requires(f"{service}:audit")], responses=COMMON)

    @router.get("/audit", summary="List audit entries")
    async def list_audit(reader: ReaderDep, page: PageDep, agency_id: AgencyQuery = None) -> Page[AuditEntry]:
        entries = [
            AuditEntry(**{**row, "before": _facts(row["before"]), "after": _facts(row["after"])})
            for row in await _read_page(reader, "audit", agency_id, page)
        ]
        return page.make(entries, key=lambda entry: str(entry.id))

    @router.get("/personal-reads", summary="List reads of personal data")
    async def list_personal_reads(
        reader: ReaderDep, page: PageDep, agency_id: AgencyQuery = None
    ) -> Page[PersonalReadEntry]:
        rows = await _read_page(reader, "personal_read", agency_id, page)
        return page.make([PersonalReadEntry(**row) for row in rows], key=lambda entry: str(entry.id))

    return router


async def _read_page(reader: Reader, table: str, agency_id: str | None, page: Pagination) -> list[asyncpg.Record]:
    """A page of the rows of one agency, or of every agency that the token may see."""
    if agency_id is None:
        async with reader.read_own() as connection:
            return await find_page(connection, table, reader.agencies, page)
    async with reader.read(agency_id) as connection:
        return await find_page(connection, table, frozenset({agency_id}), page)


async def find_page(
    connection: Connection, table: str, agencies: frozenset[str], page: Pagination
) -> list[asyncpg.Record]:
    """A page of the agencies' rows in a table of _COLUMNS, oldest first."""
    columns = _COLUMNS[table]
    if EVERY_AGENCY in agencies:
        return await connection.fetch(
            f"select {columns} from {table} where id > $1 order by id limit $2",  # noqa: S608
            page.after_id or 0,
            page.rows,
        )
    # Each agency's own index gives its part of the page: a list by ID would pass every other agency's rows.
    return await connection.fetch(
        f"""
        select entry.*
        from unnest($3::text []) as own (agency_id)
        cross join lateral (
            select {columns}
            from {table}
            where {table}.agency_id = own.agency_id and id > $1
            order by id
            limit $2
        ) as entry
        order by entry.id
        limit $2
        """,  # noqa: S608
        page.after_id or 0,
        page.rows,
        sorted(agencies),
    )


def _facts(column: str | None) -> dict[str, Any] | None:
    return None if column is None else dict(json.loads(column))

"""The routes that list the audit, and who read whose personal data."""

import json
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from muster_contracts import Instant
from muster_runtime.database.connections import Connection
from muster_runtime.http.auth import requires
from muster_runtime.http.pagination import PageDep
from muster_runtime.http.problem_responses import COMMON
from muster_runtime.http.tenancy import Reader, ReaderDep
from muster_runtime.pagination import Page

AgencyQuery = Annotated[str | None, Query(description="By default every agency the token may see.")]


class AuditEntry(BaseModel):
    """A command that was carried out."""

    id: int
    recorded_at: Instant | None = Field(description="Null if it has a date that no program can read.")
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
    """A request whose reply had names or addresses of people."""

    id: int
    read_at: Instant | None = Field(description="Null if it has a date that no program can read.")
    agency_id: str
    actor: str
    route: str = Field(examples=["GET /v1/agencies/{agency_id}/seats"])
    subject_refs: list[str] = Field(description="Whose they were.")
    request_id: str | None


def audit_router(service: str) -> APIRouter:
    """The routes of one service. The lists are oldest first."""
    router = APIRouter(prefix="/v1", tags=["audit"], dependencies=[requires(f"{service}:audit")], responses=COMMON)

    @router.get("/audit", summary="List audit entries")
    async def list_audit(reader: ReaderDep, page: PageDep, agency_id: AgencyQuery = None) -> Page[AuditEntry]:
        async with _reading(reader, agency_id) as connection:
            rows = await connection.fetch(
                """
                select
                    id, readable_instant(recorded_at) as recorded_at, agency_id, actor, command, subject, reason,
                    before, after, request_id, correlation_id
                from audit
                where id > $1
                order by id
                limit $2
                """,
                page.after_id or 0,
                page.rows,
            )
        entries = [
            AuditEntry(**{**row, "before": _facts(row["before"]), "after": _facts(row["after"])}) for row in rows
        ]
        return page.make(entries, key=lambda entry: str(entry.id))

    @router.get("/personal-reads", summary="List reads of personal data")
    async def list_personal_reads(
        reader: ReaderDep, page: PageDep, agency_id: AgencyQuery = None
    ) -> Page[PersonalReadEntry]:
        async with _reading(reader, agency_id) as connection:
            rows = await connection.fetch(
                """
                select
                    id, readable_instant(read_at) as read_at, agency_id, actor, route, subject_refs, request_id
                from personal_read
                where id > $1
                order by id
                limit $2
                """,
                page.after_id or 0,
                page.rows,
            )
        return page.make([PersonalReadEntry(**row) for row in rows], key=lambda entry: str(entry.id))

    return router


def _reading(reader: Reader, agency_id: str | None) -> AbstractAsyncContextManager[Connection]:
    """The rows of one agency, or those of every agency that the token may see."""
    return reader.read_own() if agency_id is None else reader.read(agency_id)


def _facts(column: str | None) -> dict[str, Any] | None:
    return None if column is None else dict(json.loads(column))

"""The route that lists the audit: which commands were carried out, by whom, and why."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from muster_contracts import Instant
from muster_runtime.http.auth import requires
from muster_runtime.http.pagination import PageDep
from muster_runtime.http.problem_responses import COMMON
from muster_runtime.http.tenancy import ReaderDep
from muster_runtime.pagination import Page


class AuditEntry(BaseModel):
    """A command that was carried out."""

    id: int
    recorded_at: Instant
    agency_id: str
    actor: str
    command: str
    subject: str | None
    reason: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None
    correlation_id: str


def audit_router(service: str) -> APIRouter:
    """The route that lists a service's audit, oldest first."""
    router = APIRouter(prefix="/v1/audit", tags=["audit"], responses=COMMON)

    @router.get("", summary="List audit entries", dependencies=[requires(f"{service}:audit")])
    async def list_audit(
        reader: ReaderDep,
        page: PageDep,
        agency_id: Annotated[str | None, Query(description="By default every agency the token may see.")] = None,
    ) -> Page[AuditEntry]:
        async with reader.read_own() if agency_id is None else reader.read(agency_id) as connection:
            rows = await connection.fetch(
                """
                select
                    id, recorded_at, agency_id, actor, command, subject, reason, before, after,
                    request_id, correlation_id
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

    return router


def _facts(column: str | None) -> dict[str, Any] | None:
    return None if column is None else dict(json.loads(column))

"""Who changed what, when and why: one row in the transaction that makes the change."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from muster_contracts import Instant
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.http.auth import requires
from muster_runtime.http.pagination import PageDep
from muster_runtime.http.tenancy import ReaderDep
from muster_runtime.pagination import Page

_RECORD = """
recorded as (
    insert into audit (
        recorded_at, agency_id, actor, command, subject, reason, before, after, request_id, correlation_id
    )
    select *
    from unnest(
        $1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $8::jsonb[],
        $9::text[], $10::text[]
    )
)
"""


def record(
    uow: UnitOfWork,
    *,
    command: str,
    agency_id: str,
    subject: str | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str | None = None,
) -> None:
    """Record a command with the unit of work that carries it out.

    `command` is its imperative name, `subject` the id of the thing it changed. `before` and `after` hold
    what changed, never a secret or a person's name or address: the row outlives them and cannot be edited.
    """
    uow.writes.add_row(
        _RECORD,
        uow.now,
        agency_id,
        uow.context.actor,
        command,
        subject,
        reason,
        _json(before),
        _json(after),
        uow.context.request_id,
        uow.context.correlation_id,
    )


def _json(facts: Mapping[str, Any] | None) -> str | None:
    return None if facts is None else json.dumps(facts, default=str)


def _facts(column: str | None) -> dict[str, Any] | None:
    return None if column is None else dict(json.loads(column))


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
    router = APIRouter(prefix="/v1/audit", tags=["audit"])

    @router.get("", summary="List audit entries", dependencies=[requires(f"{service}:operate")])
    async def list_audit(
        reader: ReaderDep,
        page: PageDep,
        agency_id: Annotated[str | None, Query(description="By default every agency the token may see.")] = None,
    ) -> Page[AuditEntry]:
        async with reader.read(agency_id or reader.tenant) as connection:
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

"""Records who changed what, when, and why: one row in the transaction that makes the change."""

import json
from collections.abc import Mapping
from typing import Any

from muster_runtime.database.transactions import UnitOfWork

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
    """Record a command with the unit of work that executes it.

    `command` is its imperative name, and `subject` is the ID of what it changed. `before` and `after` contain what
    changed, never a secret or a person's name or address: the row outlives them and cannot be edited.
    """
    uow.writes.add_row(
        _RECORD,
        uow.now,
        agency_id,
        uow.context.actor,
        command,
        subject,
        _with_break_glass(reason, uow.context.break_glass_reason),
        _json(before),
        _json(after),
        uow.context.request_id,
        uow.context.correlation_id,
    )


def _with_break_glass(reason: str | None, break_glass: str | None) -> str | None:
    """The command's own reason, combined with the reason for using a break-glass token."""
    if break_glass is None:
        return reason
    return f"break-glass: {break_glass}" if reason is None else f"{reason} (break-glass: {break_glass})"


def _json(facts: Mapping[str, Any] | None) -> str | None:
    return None if facts is None else json.dumps(facts, default=str)

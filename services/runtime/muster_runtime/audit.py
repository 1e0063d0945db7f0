"""Who changed what, when and why: one row in the transaction that makes the change."""

import json
from collections.abc import Mapping
from typing import Any

from muster_runtime.db import UnitOfWork


async def record(
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
    await uow.connection.execute(
        """
        insert into audit (
            recorded_at, agency_id, actor, command, subject, reason, before, after, request_id, correlation_id
        )
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
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

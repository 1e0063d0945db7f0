"""The endpoints of webhooks."""

from collections.abc import Sequence
from datetime import datetime

from muster_notify.domain import Endpoint, WebhookState
from muster_runtime.db import EVERY_AGENCY, Connection


async def add(connection: Connection, endpoint: Endpoint, event_types: Sequence[str] | None, now: datetime) -> None:
    """Add an endpoint."""
    await connection.execute(
        """
        insert into webhook (id, agency_id, url, event_types, sealed_secret, state, created_at)
        values ($1, $2, $3, $4, $5, $6, $7)
        """,
        endpoint.id,
        endpoint.agency_id,
        endpoint.url,
        event_types,
        endpoint.sealed_secret,
        endpoint.state,
        now,
    )


async def find(connection: Connection, webhook_id: str) -> Endpoint:
    """The endpoint of that id; a row is never deleted."""
    row = await connection.fetchrow(
        "select id, agency_id, url, state, sealed_secret from webhook where id = $1", webhook_id
    )
    assert row is not None
    return Endpoint(**{**row, "state": WebhookState(row["state"])})


async def wanting(
    connection: Connection, agencies: Sequence[str], event_type: str, *, on_request: bool
) -> list[tuple[str, str]]:
    """(agency, id) of the enabled endpoints that want events of a type, of these agencies or of the operators.

    A type that is sent on request alone goes only to the endpoints that name it.
    """
    rows = await connection.fetch(
        """
        select agency_id, id
        from webhook
        where
            state = 'enabled' and agency_id = any($1::text[])
            and ($2 = any(event_types) or (event_types is null and not $3))
        order by id
        """,
        [*agencies, EVERY_AGENCY],
        event_type,
        on_request,
    )
    return [(row["agency_id"], row["id"]) for row in rows]


async def set_state(connection: Connection, webhook_id: str, state: WebhookState, reason: str | None) -> None:
    """Change an endpoint's state; a deleted one keeps no secret."""
    await connection.execute(
        """
        update webhook
        set
            state = $2,
            state_reason = $3,
            sealed_secret = case when $2 = 'deleted' then null else sealed_secret end
        where id = $1 and state <> 'deleted'
        """,
        webhook_id,
        state,
        reason,
    )

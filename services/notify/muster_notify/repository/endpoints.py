"""Webhook endpoints."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from muster_notify.domain.endpoints import Endpoint, WebhookState
from muster_runtime.database.transactions import EVERY_AGENCY, Connection
from muster_runtime.database.writes import Write


def add_endpoint(endpoint: Endpoint, event_types: Sequence[str] | None, now: datetime) -> Write:
    """Add an endpoint."""
    return (
        """
        added_webhook as (
            insert into webhook (id, agency_id, url, event_types, sealed_secret, state, created_at)
            values ($1, $2, $3, $4, $5, $6, $7)
        )
        """,
        [
            endpoint.id,
            endpoint.agency_id,
            endpoint.url,
            event_types,
            endpoint.sealed_secret,
            endpoint.state,
            now,
        ],
    )


async def find_endpoint(connection: Connection, webhook_id: str) -> Endpoint:
    """An endpoint by its ID; its row is never deleted."""
    row = await connection.fetchrow(
        """
        select
            id, agency_id, url, state, sealed_secret, enabled_at, previous_secret, previous_secret_until
        from webhook
        where id = $1
        """,
        webhook_id,
    )
    assert row is not None
    return _endpoint(row)


async def find_state_and_replay(
    connection: Connection, webhook_id: str, *, tenant: str, agency_id: str
) -> tuple[WebhookState, str | None]:
    """The state of an endpoint that the tenant can see, and the ID of its replay, in a transaction about an agency.

    Row-level security shows an operators' endpoint only to operators, even if a delivery to it is about an agency.
    """
    await connection.execute("select set_config('muster.agency', $1, true)", tenant)
    row = await connection.fetchrow(
        """
        select
            state,
            (select replay.id from replay where webhook_id = webhook.id and replay.state = 'running') as replay_id
        from webhook
        where id = $1
        """,
        webhook_id,
    )
    await connection.execute("select set_config('muster.agency', $1, true)", agency_id)
    assert row is not None
    return WebhookState(row["state"]), row["replay_id"]


async def list_urls(connection: Connection, agency_id: str) -> list[tuple[str, str, list[str] | None]]:
    """ID, URL, and event types of an agency's undeleted endpoints; types of None mean all but those on request."""
    rows = await connection.fetch(
        "select id, url, event_types from webhook where agency_id = $1 and state <> 'deleted' order by id", agency_id
    )
    return [(row["id"], row["url"], row["event_types"]) for row in rows]


async def list_subscribed(
    connection: Connection, agencies: Sequence[str], event_type: str, *, on_request: bool
) -> list[Endpoint]:
    """The endpoints of these agencies and of the operators that receive a type of event, disabled ones included.

    A type that is sent on request goes only to the endpoints that name it.
    """
    rows = await connection.fetch(
        """
        select id, agency_id, url, state, sealed_secret, enabled_at
        from webhook
        where
            state <> 'deleted' and agency_id = any($1::text[])
            and ($2 = any(event_types) or (event_types is null and not $3))
        order by id
        """,
        [*agencies, EVERY_AGENCY],
        event_type,
        on_request,
    )
    return [_endpoint(row) for row in rows]


async def save_enabled(connection: Connection, webhook_id: str, now: datetime) -> bool:
    """Enable an endpoint; False if it is not disabled."""
    changed = await connection.fetchval(
        """
        update webhook
        set state = 'enabled', state_reason = null, enabled_at = $2
        where id = $1 and state = 'disabled'
        returning true
        """,
        webhook_id,
        now,
    )
    return changed is not None


async def save_disabled(connection: Connection, webhook_id: str, reason: str | None, now: datetime) -> bool:
    """Disable an endpoint; False if it is not enabled."""
    changed = await connection.fetchval(
        """
        update webhook
        set state = 'disabled', state_reason = $2, disabled_at = $3
        where id = $1 and state = 'enabled'
        returning true
        """,
        webhook_id,
        reason,
        now,
    )
    return changed is not None


async def save_secret(
    connection: Connection, webhook_id: str, sealed_secret: bytes, previous_until: datetime | None
) -> None:
    """Replace an endpoint's secret. The previous one signs until `previous_until`; with None, it no longer signs."""
    await connection.execute(
        """
        update webhook
        set
            sealed_secret = $2,
            previous_secret = case when $3::timestamptz is not null then sealed_secret end,
            previous_secret_until = $3
        where id = $1
        """,
        webhook_id,
        sealed_secret,
        previous_until,
    )


async def list_with_secrets(connection: Connection, after: str, limit: int) -> list[Endpoint]:
    """The endpoints with a secret, by ID, starting after `after`."""
    rows = await connection.fetch(
        """
        select
            id, agency_id, url, state, sealed_secret, enabled_at, previous_secret, previous_secret_until
        from webhook
        where id > $1 and sealed_secret is not null
        order by id
        limit $2
        """,
        after,
        limit,
    )
    return [_endpoint(row) for row in rows]


async def save_seals(connection: Connection, webhook_id: str, sealed_secret: bytes, previous: bytes | None) -> None:
    """Store an endpoint's resealed secrets; the secrets themselves stay the same."""
    await connection.execute(
        "update webhook set sealed_secret = $2, previous_secret = $3 where id = $1",
        webhook_id,
        sealed_secret,
        previous,
    )


async def delete_endpoint(connection: Connection, webhook_id: str) -> None:
    """Delete an endpoint: its row stays but loses its secrets and the URL, whose path may contain one."""
    await connection.execute(
        """
        update webhook
        set
            state = 'deleted', state_reason = null, url = '',
            sealed_secret = null, previous_secret = null, previous_secret_until = null
        where id = $1
        """,
        webhook_id,
    )


async def count_disabled(connection: Connection) -> int:
    """The number of disabled endpoints."""
    disabled: int = await connection.fetchval("select count(*) from webhook where state = 'disabled'")
    return disabled


def _endpoint(row: Any) -> Endpoint:
    return Endpoint(**{**row, "state": WebhookState(row["state"])})

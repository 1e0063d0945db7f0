"""The read side: endpoints, deliveries and their attempts."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from muster_contracts import Instant
from muster_notify.domain import Channel, DeliveryState, ReplayState, WebhookState
from muster_runtime.database.transactions import Connection
from muster_runtime.errors import NotFound
from muster_runtime.pagination import Pagination


class WebhookView(BaseModel):
    """An endpoint, without its secret."""

    model_config = ConfigDict(frozen=True)

    webhook_id: str
    agency_id: str = Field(description="`*` for an operators' endpoint, which receives every agency's events.")
    url: str
    event_types: list[str] | None = Field(
        description="null: every public type except those that are only sent on request."
    )
    state: WebhookState
    state_reason: str | None = None
    disabled_at: Instant | None = Field(
        default=None, description="When it was last disabled; replay from here. null: never."
    )
    created_at: Instant


class NewWebhookView(WebhookView):
    """A new endpoint; only this reply has the secret."""

    secret: str | None = Field(
        description="Verifies the signatures (Standard Webhooks). Shown once; null if the request is repeated."
    )


class ReplayView(BaseModel):
    """A replay of failed deliveries to an endpoint."""

    model_config = ConfigDict(frozen=True)

    replay_id: str
    webhook_id: str
    since: Instant = Field(description="The replay includes what failed since this instant.")
    state: ReplayState = Field(
        description="`done`: every delivery is pending again. `stopped`: the endpoint is no longer enabled."
    )
    replayed: int = Field(description="Deliveries made pending so far.")
    requested_at: Instant
    finished_at: Instant | None


class DeliveryView(BaseModel):
    """A message to one recipient about one event."""

    model_config = ConfigDict(frozen=True)

    delivery_id: str = Field(description="Also the webhook-id, and the local part of an e-mail's Message-ID.")
    position: int = Field(description="The order of deliveries; it increases.")
    agency_id: str
    event_id: str
    event_type: str
    rule: str
    channel: Channel
    recipient: str = Field(description="A role or a webhook ID.")
    state: DeliveryState
    attempts: int
    recorded_at: Instant
    first_attempt_at: Instant | None
    next_attempt_at: Instant | None = Field(
        description="null while it waits behind another delivery, and when it is done."
    )
    finished_at: Instant | None
    last_error: str | None


class AttemptView(BaseModel):
    """One attempt of a delivery."""

    model_config = ConfigDict(frozen=True)

    number: int
    attempted_at: Instant
    milliseconds: int
    outcome: str
    detail: str | None


class DeliveryLogView(DeliveryView):
    """A delivery with all its attempts."""

    log: list[AttemptView]


_WEBHOOK = """
    id as webhook_id, agency_id, url, event_types, state, state_reason, disabled_at, created_at
"""

_DELIVERY = """
    id as delivery_id, position, agency_id, event_id, event_type, rule, channel, recipient, state, attempts,
    recorded_at, first_attempt_at, next_attempt_at, finished_at, last_error
"""


async def webhooks(
    connection: Connection, page: Pagination, *, agency_id: str | None = None, state: WebhookState | None = None
) -> list[WebhookView]:
    """An agency's own endpoints, or those of all, that are not deleted: one more than the page holds."""
    rows = await connection.fetch(
        f"""
        select {_WEBHOOK}
        from webhook
        where
            state <> 'deleted'
            and ($1::text is null or agency_id = $1)
            and ($2::text is null or state = $2)
            and ($3::text is null or id > $3)
        order by id
        limit $4
        """,  # noqa: S608
        agency_id,
        state,
        page.after,
        page.rows,
    )
    return [WebhookView(**row) for row in rows]


async def webhook(connection: Connection, agency_id: str, webhook_id: str) -> WebhookView:
    """An agency's endpoint. Raises NotFound, also for one that is deleted."""
    row = await connection.fetchrow(
        f"select {_WEBHOOK} from webhook where agency_id = $1 and id = $2 and state <> 'deleted'",  # noqa: S608
        agency_id,
        webhook_id,
    )
    if row is None:
        raise NotFound(f"there is no webhook {webhook_id[:80]}")
    return WebhookView(**row)


async def replay(connection: Connection, agency_id: str, webhook_id: str, replay_id: str) -> ReplayView:
    """A replay of an agency's endpoint. Raises NotFound."""
    row: Any = await connection.fetchrow(
        """
        select id as replay_id, webhook_id, since, state, replayed, requested_at, finished_at
        from replay
        where agency_id = $1 and webhook_id = $2 and id = $3
        """,
        agency_id,
        webhook_id,
        replay_id,
    )
    if row is None:
        raise NotFound(f"there is no replay {replay_id[:80]}")
    return ReplayView(**row)


async def deliveries(
    connection: Connection,
    agency_id: str,
    page: Pagination,
    *,
    tenant: str,
    state: DeliveryState | None,
    channel: Channel | None,
) -> list[DeliveryView]:
    """Deliveries about an agency (with `*`, about any), the latest first, one more than the page holds.

    A tenant sees those to its own recipients, an operator also those to the operators'.
    """
    rows = await connection.fetch(
        f"""
        select {_DELIVERY}
        from delivery
        where
            ($1 = '*' or agency_id = $1)
            and ($2 = '*' or audience = $2)
            and ($3::text is null or state = $3)
            and ($4::text is null or channel = $4)
            and ($5::bigint is null or position < $5)
        order by position desc
        limit $6
        """,  # noqa: S608
        agency_id,
        tenant,
        state,
        channel,
        page.after_id,
        page.rows,
    )
    return [DeliveryView(**row) for row in rows]


async def delivery(connection: Connection, agency_id: str, delivery_id: str, *, tenant: str) -> DeliveryLogView:
    """A delivery with its attempts. Raises NotFound, also for one to another audience than the tenant."""
    row: Any = await connection.fetchrow(
        f"select {_DELIVERY} from delivery where agency_id = $1 and id = $2 and ($3 = '*' or audience = $3)",  # noqa: S608
        agency_id,
        delivery_id,
        tenant,
    )
    if row is None:
        raise NotFound(f"there is no delivery {delivery_id[:80]}")
    attempts = await connection.fetch(
        """
        select number, attempted_at, milliseconds, outcome, detail
        from delivery_attempt
        where delivery_id = $1
        order by number
        """,
        delivery_id,
    )
    return DeliveryLogView(**row, log=[AttemptView(**attempt) for attempt in attempts])

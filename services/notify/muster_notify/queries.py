"""The read side: endpoints, replays, and deliveries with their attempts."""

from typing import Any

from muster_notify.domain.deliveries import Channel, DeliveryState
from muster_notify.domain.endpoints import WebhookState
from muster_notify.domain.urls import shown_url
from muster_notify.errors import DeliveryUnknown, ReplayUnknown, WebhookUnknown
from muster_notify.replies import AttemptReply, DeliveryLogReply, DeliveryReply, ReplayReply, WebhookReply
from muster_runtime.database.transactions import Connection
from muster_runtime.identifiers import EVERY_AGENCY
from muster_runtime.pagination import Page, Pagination

_WEBHOOK = """
    id as webhook_id, agency_id, url, event_types, state, state_reason, disabled_at, created_at
"""

_DELIVERY = """
    id as delivery_id, position, agency_id, event_id, event_type, rule, channel, recipient, state, attempts,
    recorded_at, first_attempt_at, next_attempt_at, finished_at, last_error
"""


async def list_webhooks(
    connection: Connection, page: Pagination, *, agency_id: str | None = None, state: WebhookState | None = None
) -> Page[WebhookReply]:
    """Endpoints that are not deleted, an agency's own or all, oldest first."""
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
    return page.make([_webhook(row) for row in rows], key=lambda webhook: webhook.webhook_id)


async def find_webhook(connection: Connection, agency_id: str, webhook_id: str) -> WebhookReply:
    """An agency's endpoint. Raises WebhookUnknown if there is none, or it was deleted."""
    row = await connection.fetchrow(
        f"select {_WEBHOOK} from webhook where agency_id = $1 and id = $2 and state <> 'deleted'",  # noqa: S608
        agency_id,
        webhook_id,
    )
    if row is None:
        raise WebhookUnknown(webhook_id)
    return _webhook(row)


def _webhook(row: Any) -> WebhookReply:
    return WebhookReply(**{**row, "url": shown_url(row["url"])})


async def find_replay(connection: Connection, agency_id: str, webhook_id: str, replay_id: str) -> ReplayReply:
    """A replay of an agency's endpoint. Raises ReplayUnknown."""
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
        raise ReplayUnknown(replay_id)
    return ReplayReply(**row)


async def list_deliveries(
    connection: Connection,
    agency_id: str,
    page: Pagination,
    *,
    tenant: str,
    state: DeliveryState | None,
    channel: Channel | None,
) -> Page[DeliveryReply]:
    """Deliveries about an agency (with `*`, about any), latest first. Raises InvalidCursor.

    A tenant sees those to its own recipients; an operator (`*`) sees all. Reads at most one page per agency.
    """
    seen = "$2 = '*'" if tenant == EVERY_AGENCY else "audience = $2 and audience <> '*'"  # worded like the index
    rows = await connection.fetch(
        f"""
        with agency as (
            select $1::text as agency_id where $1 <> '*'
            union all
            select agency_id from agency_instant where $1 = '*'
        )

        select d.*
        from agency as a
        cross join lateral (
            select {_DELIVERY}
            from delivery
            where
                agency_id = a.agency_id
                and {seen}
                and ($3::text is null or state = $3)
                and ($4::text is null or channel = $4)
                and ($5::bigint is null or position < $5)
            order by position desc
            limit $6
        ) as d
        order by d.position desc
        limit $6
        """,  # noqa: S608
        agency_id,
        tenant,
        state,
        channel,
        page.after_id,
        page.rows,
    )
    return page.make([DeliveryReply(**row) for row in rows], key=lambda delivery: str(delivery.position))


async def find_delivery(connection: Connection, agency_id: str, delivery_id: str, *, tenant: str) -> DeliveryLogReply:
    """A delivery with its attempts. Raises DeliveryUnknown if it does not exist or is not for the tenant."""
    row: Any = await connection.fetchrow(
        f"select {_DELIVERY} from delivery where agency_id = $1 and id = $2 and ($3 = '*' or audience = $3)",  # noqa: S608
        agency_id,
        delivery_id,
        tenant,
    )
    if row is None:
        raise DeliveryUnknown(delivery_id)
    attempts = await connection.fetch(
        """
        select number, attempted_at, milliseconds, outcome, detail
        from delivery_attempt
        where delivery_id = $1
        order by number
        """,
        delivery_id,
    )
    return DeliveryLogReply(**row, log=[AttemptReply(**attempt) for attempt in attempts])

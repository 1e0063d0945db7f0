"""Disables an endpoint that has failed for too long or is gone, and publishes that."""

from collections.abc import Sequence

import structlog
from prometheus_client import Gauge

from muster_contracts.notify import WebhookEndpointDisabled
from muster_notify.domain import Delivery, WebhookState
from muster_notify.repository import endpoints
from muster_runtime.database.transactions import EVERY_AGENCY, Connection, UnitOfWork
from muster_runtime.observability import audit

WEBHOOKS_DISABLED = Gauge(
    "muster_webhooks_disabled", "Webhook endpoints that receive nothing until someone enables them.", ["service"]
)

_log = structlog.get_logger(__name__)


async def disable(uow: UnitOfWork, delivery: Delivery, reason: str | None) -> None:
    """Disable the endpoint of a delivery that was given up, unless that has been done, and publish the fact.

    An endpoint of the operators' own is no agency's fact: the alarm, the readiness's warning and the audit say so.
    """
    owner, webhook_id = delivery.audience, delivery.recipient
    if not await endpoints.disable(uow.connection, webhook_id, reason, uow.now):
        return
    audit.record(
        uow,
        command="DisableWebhook",
        agency_id=owner,
        subject=webhook_id,
        reason=reason,
        before={"state": WebhookState.ENABLED},
        after={"state": WebhookState.DISABLED},
    )
    if owner != EVERY_AGENCY:
        uow.publish(
            WebhookEndpointDisabled(
                agency_id=owner,
                webhook_id=webhook_id,
                # A lane is strictly in order: since this delivery's first attempt nothing else of it has arrived.
                failing_since=delivery.round_started_at or uow.now,
                disabled_at=uow.now,
            )
        )
    _log.warning("webhook_disabled", webhook_id=webhook_id, agency_id=owner, reason=reason)


async def warnings(connection: Connection) -> Sequence[str]:
    """The warnings of a ready service: how many endpoints are disabled."""
    disabled: int = await connection.fetchval("select count(*) from webhook where state = 'disabled'")
    WEBHOOKS_DISABLED.labels("notify").set(disabled)
    return [f"webhook endpoints are disabled: {disabled}"] if disabled else []

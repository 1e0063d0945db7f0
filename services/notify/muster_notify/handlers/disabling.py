"""Disables an endpoint that has failed for too long or is gone, and publishes that."""

from collections.abc import Sequence

import structlog
from prometheus_client import Gauge

from muster_notify import publishing
from muster_notify.domain.deliveries import Delivery
from muster_notify.domain.endpoints import WebhookState
from muster_notify.repository import endpoints
from muster_runtime.database.transactions import EVERY_AGENCY, Connection, UnitOfWork
from muster_runtime.observability import audit

WEBHOOKS_DISABLED = Gauge(
    "muster_webhooks_disabled", "Webhook endpoints that receive nothing until someone enables them.", ["service"]
)

_log = structlog.get_logger(__name__)


async def disable_endpoint(uow: UnitOfWork, delivery: Delivery, reason: str | None) -> None:
    """Disable the endpoint of a delivery that was given up, unless it already is, and publish the fact.

    An operators' endpoint belongs to no agency, so nothing is published for it: the alert, the readiness warning, and
    the audit trail show it.
    """
    owner, webhook_id = delivery.audience, delivery.recipient
    if not await endpoints.save_disabled(uow.connection, webhook_id, reason, uow.now):
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
        uow.publish(publishing.webhook_endpoint_disabled(delivery, uow.now))
    _log.warning("webhook_disabled", webhook_id=webhook_id, agency_id=owner, reason=reason)


async def disabled_warnings(connection: Connection) -> Sequence[str]:
    """A readiness warning: how many endpoints are disabled."""
    disabled = await endpoints.count_disabled(connection)
    WEBHOOKS_DISABLED.labels("notify").set(disabled)
    return [f"webhook endpoints are disabled: {disabled}"] if disabled else []

"""Converts facts of the domain to the contracts' events."""

from datetime import datetime

from muster_contracts.notify import WebhookEndpointDisabled
from muster_notify.domain.deliveries import Delivery


def webhook_endpoint_disabled(delivery: Delivery, disabled_at: datetime) -> WebhookEndpointDisabled:
    """The endpoint of a delivery was disabled, because the delivery was given up."""
    return WebhookEndpointDisabled(
        agency_id=delivery.audience,
        webhook_id=delivery.recipient,
        # A lane is strictly ordered: nothing else in it has been delivered since this delivery's first attempt.
        failing_since=delivery.round_started_at or disabled_at,
        disabled_at=disabled_at,
    )

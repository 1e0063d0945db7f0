"""The commands of notify."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class AddWebhook:
    """Send an agency's events (with `*`, every agency's) to a URL; without types, all except the frequent ones."""

    agency_id: str
    url: str
    event_types: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class DeleteWebhook:
    """Stop sending to an endpoint permanently."""

    agency_id: str
    webhook_id: str


@dataclass(frozen=True, slots=True)
class EnableWebhook:
    """Resume sending to a disabled endpoint."""

    agency_id: str
    webhook_id: str


@dataclass(frozen=True, slots=True)
class RotateWebhookSecret:
    """Replace an endpoint's secret. For `overlap_hours`, the previous secret signs as well."""

    agency_id: str
    webhook_id: str
    overlap_hours: int


@dataclass(frozen=True, slots=True)
class ReplayWebhook:
    """Send again what failed to reach an endpoint since an instant."""

    agency_id: str
    webhook_id: str
    since: datetime


@dataclass(frozen=True, slots=True)
class RetryDelivery:
    """Attempt a delivery now, if it failed or waits for its next attempt. `tenant` is the caller's agency."""

    agency_id: str
    delivery_id: str
    tenant: str

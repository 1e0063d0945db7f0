"""What can be asked of notify."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class AddWebhook:
    """Send an agency's events (with `*`, every agency's) to a URL; without types, all but the frequent ones."""

    agency_id: str
    url: str
    event_types: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class DeleteWebhook:
    """Send nothing more to an endpoint."""

    agency_id: str
    webhook_id: str


@dataclass(frozen=True, slots=True)
class EnableWebhook:
    """Send events again to an endpoint that is disabled."""

    agency_id: str
    webhook_id: str


@dataclass(frozen=True, slots=True)
class ReplayWebhook:
    """Send once more what has failed to reach an endpoint since an instant."""

    agency_id: str
    webhook_id: str
    since: datetime


@dataclass(frozen=True, slots=True)
class RetryDelivery:
    """Attempt a delivery that failed, or that waits for its next attempt, now. `tenant` is who asks."""

    agency_id: str
    delivery_id: str
    tenant: str

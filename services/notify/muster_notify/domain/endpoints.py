"""Webhook endpoints, and replays of what they missed."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

# The maximum number of endpoints of an agency, or of the operators: each event creates a delivery for each endpoint.
MAX_ENDPOINTS = 20


class WebhookState(StrEnum):
    """Whether an endpoint receives events."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    DELETED = "deleted"


class ReplayState(StrEnum):
    """The state of a replay."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"  # the endpoint was disabled or deleted


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook endpoint; `agency_id` is `*` if it receives every agency's events.

    `enabled_at` is when it was last enabled again; None if it never was. Secrets are sealed; the previous one signs
    until `previous_secret_until`.
    """

    id: str
    agency_id: str
    url: str
    state: WebhookState
    sealed_secret: bytes | None
    enabled_at: datetime | None = None
    previous_secret: bytes | None = None
    previous_secret_until: datetime | None = None

    def signing_secrets(self, now: datetime) -> list[bytes]:
        """The sealed secrets that sign what is sent now, newest first. During a rotation, there are two."""
        secrets = [self.sealed_secret]
        if self.previous_secret_until is not None and now < self.previous_secret_until:
            secrets.append(self.previous_secret)
        return [secret for secret in secrets if secret is not None]


@dataclass(frozen=True, slots=True)
class Replay:
    """Resends what an endpoint missed since an instant, agency by agency, each agency's deliveries in order.

    Its place is the agency and position of the last delivery that was made pending.
    """

    id: str
    agency_id: str
    webhook_id: str
    since: datetime
    place_agency_id: str = ""
    place_position: int = 0

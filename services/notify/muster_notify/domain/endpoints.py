"""Webhook endpoints, and replays of what they missed."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class WebhookState(StrEnum):
    """Whether an endpoint receives events."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    DELETED = "deleted"


class ReplayState(StrEnum):
    """The state of a replay."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"  # the endpoint was disabled or deleted meanwhile


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook endpoint: `agency_id` is `*` for one that receives every agency's events.

    `enabled_at` is when it was last enabled again; None if it never was.
    """

    id: str
    agency_id: str
    url: str
    state: WebhookState
    sealed_secret: bytes | None
    enabled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """Resends what an endpoint has missed since an instant, agency by agency, each agency's deliveries in order.

    The place is the agency and position of the last delivery that was made pending.
    """

    id: str
    agency_id: str
    webhook_id: str
    since: datetime
    place_agency_id: str = ""
    place_position: int = 0

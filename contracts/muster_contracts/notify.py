"""Events of the notify service: what could not be told."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from muster_contracts.event import Event, event
from muster_contracts.types import Instant, Open

EventId = Annotated[
    str,
    Field(
        description="The `id` of the event that was to be told.",
        examples=["muster.entitlements.feature/NASA/1/00000000000000000007"],
    ),
]


class Channel(StrEnum):
    """The way in which somebody is told."""

    EMAIL = "email"
    WEBHOOK = "webhook"


class _DeliveryFact(Event):
    topic: ClassVar[str] = "muster.notify.delivery"


@event
class NotificationFailed(_DeliveryFact):
    """A delivery was given up after its last attempt.

    Emitted once for each delivery that fails for good.
    """

    event_type: ClassVar[str] = "muster.notify.NotificationFailed.v1"
    emitted: ClassVar[bool] = False

    delivery_id: str = Field(description="The delivery.", examples=["dlv_01987b3e0000700080000000000000ea"])
    event_id: EventId
    channel: Open[Channel] = Field(description="The way it was sent.", examples=["webhook", "pager"])
    attempts: int = Field(ge=1, description="Attempts made.", examples=[9, 1])
    reason: str = Field(description="Why the last attempt failed.", examples=["the receiver answered 503", ""])
    failed_at: Instant = Field(description="When it was given up, UTC.", examples=["2025-11-03T08:15:00Z"])


@event
class WebhookEndpointDisabled(_DeliveryFact):
    """A webhook endpoint gets nothing more until it is enabled again.

    Emitted when it has failed for fourteen days and twenty attempts, or its receiver answered that it is gone (410).
    """

    event_type: ClassVar[str] = "muster.notify.WebhookEndpointDisabled.v1"

    webhook_id: str = Field(description="The endpoint.", examples=["whk_01987b3e0000700080000000000000eb"])
    failing_since: Instant = Field(
        description="The first failure without a success since, UTC.", examples=["2025-10-29T08:15:00Z"]
    )
    disabled_at: Instant = Field(description="Since when, UTC.", examples=["2025-11-03T08:15:00Z"])

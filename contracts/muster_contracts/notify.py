"""Events of the notify service: failed deliveries, disabled endpoints, and audit seals."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from muster_contracts.audit import SealedAudit
from muster_contracts.event import Event, event
from muster_contracts.types import Instant, Open

EventId = Annotated[
    str,
    Field(
        description="The `id` of the event that the delivery is about.",
        examples=["muster.entitlements.feature/NASA/1/00000000000000000007"],
    ),
]


class Channel(StrEnum):
    """The channel of a delivery."""

    EMAIL = "email"
    WEBHOOK = "webhook"


class _DeliveryFact(Event):
    topic: ClassVar[str] = "muster.notify.delivery"


@event
class NotificationFailed(_DeliveryFact):
    """A delivery failed after its last attempt.

    Emitted once per delivery that fails permanently.
    """

    event_type: ClassVar[str] = "muster.notify.NotificationFailed.v1"
    emitted: ClassVar[bool] = False

    delivery_id: str = Field(description="The delivery.", examples=["dlv_01987b3e0000700080000000000000ea"])
    event_id: EventId
    channel: Open[Channel] = Field(description="The channel of the delivery.", examples=["webhook", "pager"])
    attempts: int = Field(ge=1, description="Attempts made.", examples=[9, 1])
    reason: str = Field(description="Why the last attempt failed.", examples=["the receiver answered 503", ""])
    failed_at: Instant = Field(description="Time of the failure, UTC.", examples=["2025-11-03T08:15:00Z"])


@event
class WebhookEndpointDisabled(_DeliveryFact):
    """A webhook endpoint was disabled; it receives nothing until it is enabled again.

    Emitted after twenty failed attempts of a delivery, over about 13 days, or when its receiver answered 410 (gone).
    """

    event_type: ClassVar[str] = "muster.notify.WebhookEndpointDisabled.v1"

    webhook_id: str = Field(description="The endpoint.", examples=["whk_01987b3e0000700080000000000000eb"])
    failing_since: Instant = Field(
        description="The first failure since the last success, UTC.", examples=["2025-10-29T08:15:00Z"]
    )
    disabled_at: Instant = Field(description="When the endpoint was disabled, UTC.", examples=["2025-11-03T08:15:00Z"])


@event
class NotifyAuditSealed(SealedAudit):
    """Rows of notify's audit trail were sealed: from now on, any change to them is noticed.

    Emitted about a minute after a command, once for each agency with new rows.
    """

    event_type: ClassVar[str] = "muster.notify.AuditSealed.v1"
    topic: ClassVar[str] = "muster.notify.audit"

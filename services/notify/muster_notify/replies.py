"""The replies of the routes."""

from pydantic import BaseModel, Field

from muster_contracts import Instant
from muster_notify.domain.deliveries import Channel, DeliveryState
from muster_notify.domain.endpoints import ReplayState, WebhookState


class WebhookReply(BaseModel):
    """An endpoint, without its secrets."""

    webhook_id: str
    agency_id: str = Field(description="`*` for an operators' endpoint, which receives every agency's events.")
    url: str = Field(
        description="The scheme and the host; `…` stands for the path and query, which may contain a secret. Only the "
        "first reply to the request that adds the endpoint shows them.",
        examples=["https://agency.example/…"],
    )
    event_types: list[str] | None = Field(description="null: every public type except those sent only on request.")
    state: WebhookState
    state_reason: str | None = None
    disabled_at: Instant | None = Field(
        default=None, description="When it was last disabled; replay from here. null: never."
    )
    created_at: Instant


class NewWebhookReply(WebhookReply):
    """A new endpoint; only this reply contains the secret and the whole URL."""

    secret: str | None = Field(
        description="Verifies the signatures (Standard Webhooks). Shown once; null if the request is repeated."
    )


class RotatedSecretReply(BaseModel):
    """The new secret of an endpoint; only this reply contains it."""

    webhook_id: str
    previous_secret_until: Instant | None = Field(
        description="When the previous secret stops signing; null if it no longer signs."
    )
    secret: str | None = Field(
        description="Verifies the signatures (Standard Webhooks). Shown once; null if the request is repeated."
    )


class ReplayReply(BaseModel):
    """A replay of failed deliveries to an endpoint."""

    replay_id: str
    webhook_id: str
    since: Instant = Field(description="The replay includes what failed since this instant.")
    state: ReplayState = Field(
        description="`done`: every delivery is pending again. `stopped`: the endpoint is no longer enabled."
    )
    replayed: int = Field(description="Deliveries made pending so far.")
    requested_at: Instant
    finished_at: Instant | None


class DeliveryReply(BaseModel):
    """A message to one recipient about one event."""

    delivery_id: str = Field(description="Also the webhook-id, and the local part of an e-mail's Message-ID.")
    position: int = Field(description="The delivery's place in the order of deliveries; it increases.")
    agency_id: str
    event_id: str
    event_type: str
    rule: str
    channel: Channel
    recipient: str = Field(description="A role, a person's reference, or a webhook ID.")
    state: DeliveryState
    attempts: int
    recorded_at: Instant
    first_attempt_at: Instant | None
    next_attempt_at: Instant | None = Field(
        description="null while it waits behind another delivery, and once it is finished."
    )
    finished_at: Instant | None
    last_error: str | None


class AttemptReply(BaseModel):
    """One attempt of a delivery."""

    number: int
    attempted_at: Instant
    milliseconds: int
    outcome: str
    detail: str | None


class DeliveryLogReply(DeliveryReply):
    """A delivery with all its attempts."""

    log: list[AttemptReply]

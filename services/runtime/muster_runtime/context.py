"""Where a change comes from: carried through HTTP, outbox, Kafka and back."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Context:
    """The origin of a transaction's changes.

    `actor` is who asked (a token's subject, or the service itself); `correlation_id` is shared by all
    that follows from one request; `causation_id` is the event that led to this, if one did;
    `break_glass_reason` is why a person used a break-glass token for it, if one did.
    """

    actor: str
    correlation_id: str
    causation_id: str | None = None
    traceparent: str | None = None
    request_id: str | None = None
    break_glass_reason: str | None = None

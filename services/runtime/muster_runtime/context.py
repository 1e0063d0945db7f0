"""Where a change comes from: carried through HTTP, outbox, Kafka and back."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Context:
    """The origin of a transaction's changes.

    `actor` is who asked (a token's subject, or the service itself); `correlation_id` is shared by all
    that follows from one request; `causation_id` is the event that led to this, if one did. `traceparent` names the
    trace and the span in which it happens (W3C Trace Context). `break_glass_reason` is why a person used a break-glass
    token for it, if one did.
    """

    actor: str
    correlation_id: str
    causation_id: str | None = None
    traceparent: str | None = None
    request_id: str | None = None
    break_glass_reason: str | None = None

    def traceparent_after(self, cause: str | None) -> str | None:
        """What an effect of an event carries, whose traceparent is `cause`.

        It is this context's if that is a span of the event's trace. One transaction may apply events of several.
        """
        if cause is None or self.traceparent is None or self.traceparent[3:35] != cause[3:35]:
            return cause
        return self.traceparent

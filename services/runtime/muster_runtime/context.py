"""The origin of a change, carried through HTTP, the outbox, Kafka, and back."""

from dataclasses import dataclass
from datetime import datetime

from muster_runtime.identifiers import new_id


@dataclass(frozen=True, slots=True)
class Context:
    """The origin of a transaction's changes.

    `actor` is the caller (a token's subject, or the service itself). `correlation_id` is shared by everything that
    follows from one request. `causation_id` is the event that led to this change, if any. `traceparent` names the trace
    and span of the change (W3C Trace Context). `break_glass_reason` is why a person used a break-glass token for it, if
    they did.
    """

    actor: str
    correlation_id: str
    causation_id: str | None = None
    traceparent: str | None = None
    request_id: str | None = None
    break_glass_reason: str | None = None

    def traceparent_after(self, cause: str | None) -> str | None:
        """The traceparent for an effect of an event whose own traceparent is `cause`.

        It is this context's if that is a span in the event's trace; one transaction may apply events of several traces.
        """
        if cause is None or self.traceparent is None or self.traceparent[3:35] != cause[3:35]:
            return cause
        return self.traceparent


def new_context(actor: str, now: datetime) -> Context:
    """The origin of changes that no request and no event led to, such as a duty's: they share a new correlation ID."""
    return Context(actor=actor, correlation_id=new_id("cor", now))

"""What a handler is given: events with their envelopes, in stream order."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from muster_contracts import Envelope, Event

if TYPE_CHECKING:
    from muster_runtime.db import UnitOfWork

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class Received(Generic[E]):
    """An event as it came from Kafka."""

    envelope: Envelope
    data: E


# Applies a run: events of one type, of one or several agencies, each agency's in its order.
# It raises a PermanentError to park an agency's stream; anything else is retried.
EventHandler = Callable[["UnitOfWork", Sequence[Received[Any]]], Awaitable[None]]

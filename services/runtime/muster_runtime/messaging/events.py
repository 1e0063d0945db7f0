"""What a handler receives: events with their envelopes, in stream order."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from muster_contracts import Envelope, Event
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import PermanentError

E = TypeVar("E", bound=Event)


class Unreadable(PermanentError):
    """A record's value does not match the type in its header."""

    slug = "unreadable-event"
    title = "The event cannot be read"


class Received(Generic[E]):
    """An event received from Kafka. Its data is parsed on first access, because many handlers need only some."""

    __slots__ = ("_data", "_read", "envelope")

    def __init__(self, envelope: Envelope, read: Callable[[], E]) -> None:
        self.envelope = envelope
        self._read = read
        self._data: E | None = None

    @property
    def data(self) -> E:
        """The fact. Raises Unreadable if the record's value does not match the event's type."""
        if self._data is None:
            self._data = self._read()
        return self._data


# Applies a run: events of one type, of one or more agencies, with each agency's events in order. To park an agency's
# stream, it raises a PermanentError; any other error is retried.
EventHandler = Callable[[UnitOfWork, Sequence[Received[Any]]], Awaitable[None]]

"""Reading a raw record: the event in it, or the defect that keeps it from being applied.

The value is read only when a handler asks for it.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

from pydantic import ValidationError

from muster_contracts import Envelope, Erasure, Event, MalformedRecord, read_headers, split_type
from muster_runtime.events import Received, Unreadable
from muster_runtime.parking import Record
from muster_runtime.positions import Position
from muster_runtime.telemetry import UNKNOWN_TYPES


class Item(NamedTuple):
    """A record with what was read of it: an event, a mere position (a type not read here), or a defect."""

    record: Record
    envelope: Envelope | None = None
    event: Received[Any] | None = None
    defect: str | None = None

    @property
    def position(self) -> Position | None:
        return (self.envelope.epoch, self.envelope.sequence) if self.envelope else None


class RecordReader:
    """Reads records as a service subscribes to them."""

    def __init__(self, subscribed: Iterable[type[Event]], service: str) -> None:
        self._classes = {cls.event_type: cls for cls in subscribed}
        self._families = {split[0] for name in self._classes if (split := split_type(name))}
        self._service = service

    def read(self, record: Record) -> Item:
        """Read a record: all that is wrong with it becomes a defect, which parks it raw."""
        try:
            envelope = read_headers(record.headers)
        except MalformedRecord as error:
            return Item(record, defect=str(error))
        if envelope.agency_id != record.agency_id:
            return Item(record, envelope, defect="the key is not the partitionkey attribute")
        cls = self._classes.get(envelope.type)
        if cls is None:
            return self._unread(record, envelope)
        return Item(record, envelope, Received(envelope, partial(_event, cls, record)))

    def _unread(self, record: Record, envelope: Envelope) -> Item:
        """A type that is not read here is acknowledged; another major version of one that is, never."""
        split = split_type(envelope.type)
        if split and split[0] in self._families:
            return Item(record, envelope, defect=f"{envelope.type} is of an unknown major version")
        UNKNOWN_TYPES.labels(self._service, record.topic).inc()
        return Item(record, envelope)


def _event(cls: type[Event], record: Record) -> Event:
    try:
        if issubclass(cls, Erasure):
            return cls(agency_id=record.agency_id, subject_ref=(record.key or b"").decode("utf-8", "replace"))
        event: Event = cls.__pydantic_validator__.validate_json(record.value or b"")
        return event
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, e["loc"])) or "value" for e in error.errors())
        raise Unreadable(f"the value does not fit {cls.event_type}: {fields}") from None

"""Reading a raw record: the event in it, or the defect that keeps it from being applied."""

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from muster_contracts import Envelope, Erasure, Event, MalformedRecord, read_headers, split_type
from muster_runtime.parking import Record
from muster_runtime.telemetry import UNKNOWN_TYPES

Position = tuple[int, int]  # epoch, sequence


@dataclass(frozen=True, slots=True)
class Item:
    """A record with what was read of it: an event, a mere position (a type not read here), or a defect."""

    record: Record
    envelope: Envelope | None = None
    event: Event | None = None
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
        if envelope.type not in self._classes:
            return self._unread(record, envelope)
        cls = self._classes[envelope.type]
        try:
            return Item(record, envelope, _event(cls, record))
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, e["loc"])) or "value" for e in error.errors())
            return Item(record, envelope, defect=f"the value does not fit {envelope.type}: {fields}")

    def _unread(self, record: Record, envelope: Envelope) -> Item:
        """A type that is not read here is acknowledged; another major version of one that is, never."""
        split = split_type(envelope.type)
        if split and split[0] in self._families:
            return Item(record, envelope, defect=f"{envelope.type} is of an unknown major version")
        UNKNOWN_TYPES.labels(self._service, record.topic).inc()
        return Item(record, envelope)


def _event(cls: type[Event], record: Record) -> Event:
    if issubclass(cls, Erasure):
        return cls(agency_id=record.agency_id, subject_ref=(record.key or b"").decode("utf-8", "replace"))
    return cls.model_validate_json(record.value or b"")

"""Reads raw records: finds the event in a record, or the defect that prevents applying it.

The value is parsed only when a handler asks for it.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from muster_contracts import (
    Envelope,
    Erasure,
    Event,
    MalformedRecord,
    Position,
    faults,
    read_headers,
    split_type,
    subject_of,
)
from muster_contracts.event import find_event
from muster_runtime.clock import Clock
from muster_runtime.messaging.events import Received, Unreadable
from muster_runtime.observability.telemetry import UNKNOWN_TYPES

# How far a producer's clock may be ahead. A later event would also set the time of everything its agency does after it.
FUTURE = timedelta(minutes=1)


class Record(NamedTuple):
    """A raw record from Kafka; `topic` is the contract's name, without a prefix."""

    topic: str
    agency_id: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Item(NamedTuple):
    """A record and what was read from it: an event, only a position (of a type not read here), or a defect."""

    record: Record
    envelope: Envelope | None = None
    event: Received[Any] | None = None
    defect: str | None = None

    @property
    def position(self) -> Position | None:
        """The position in the stream of the record's key; None if the record is of no stream or of another."""
        envelope = self.envelope
        if envelope is None or envelope.agency_id != self.record.agency_id:
            return None
        return Position(envelope.epoch, envelope.sequence)


class RecordReader:
    """Reads records of the event types that a service subscribes to."""

    def __init__(self, subscribed: Iterable[type[Event]], service: str, clock: Clock) -> None:
        self._clock = clock
        self._classes = {cls.event_type: cls for cls in subscribed}
        self._families = {split[0] for name in self._classes if (split := split_type(name))}
        self._service = service

    def latest(self) -> datetime | None:
        """The latest time that an event may have now; None with virtual clocks, which need not agree."""
        return None if self._clock.virtual else self._clock.now() + FUTURE

    def read(self, record: Record, latest: datetime | None) -> Item:
        """Read a record. Anything wrong with it becomes a defect, which parks it raw."""
        envelope = None
        try:
            envelope = read_headers(record.headers)
            if envelope.agency_id != record.agency_id:
                return Item(record, envelope, defect="the key is not the partitionkey attribute")
            if latest is not None and envelope.time > latest:
                return Item(record, envelope, defect=f"header ce_time is {envelope.time}, which is in the future")
            cls = self._classes.get(envelope.type)
            if cls is None:
                return self._unread(record, envelope)
        except MalformedRecord as error:
            return Item(record, envelope, defect=str(error))
        except Exception as error:  # one record must never stop the others
            return Item(record, envelope, defect=f"it cannot be read: {type(error).__name__}")
        return Item(record, envelope, Received(envelope, partial(_event, cls, record)))

    def _unread(self, record: Record, envelope: Envelope) -> Item:
        """Accept an event of a type that is not read here, but never an unknown major version of one that is."""
        split = split_type(envelope.type)
        if split and split[0] in self._families:
            return Item(record, envelope, defect=f"{envelope.type} is of an unknown major version")
        if find_event(envelope.type) is None:
            UNKNOWN_TYPES.labels(self._service, record.topic).inc()
        return Item(record, envelope)


def _event(cls: type[Event], record: Record) -> Event:
    try:
        if issubclass(cls, Erasure):
            return cls(agency_id=record.agency_id, subject_ref=subject_of(record.key))
        event: Event = cls.__pydantic_validator__.validate_json(record.value or b"")
    except Exception as error:  # whatever it is, the record is to blame
        raise Unreadable(f"the value does not fit {cls.event_type}: {faults(error)}") from None
    if event.agency_id != record.agency_id:
        raise Unreadable(f"the value does not fit {cls.event_type}: agency_id is not the partitionkey attribute")
    return event

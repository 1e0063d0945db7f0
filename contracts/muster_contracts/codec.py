"""From an event to the value of a Kafka record, and from a record back to the event."""

from collections.abc import Iterable
from typing import NamedTuple

from pydantic import ValidationError

from muster_contracts.envelope import Envelope, MalformedRecord, read_headers
from muster_contracts.event import Erasure, Event, find_event, latest_major, split_type


class Decoded(NamedTuple):
    """An event with its envelope."""

    envelope: Envelope
    event: Event


class UnknownType(NamedTuple):
    """A record of a type that this version of the package does not know: count it and go on."""

    envelope: Envelope


class NewerMajor(NamedTuple):
    """A newer major version of a type that this version of the package knows.

    The fact may matter to you and cannot be read: stop there and upgrade, rather than go on without it.
    """

    envelope: Envelope
    known: int
    major: int


def encode(event: Event) -> bytes | None:
    """The value of an event's record; None for a tombstone."""
    if isinstance(event, Erasure):
        return None
    return event.__pydantic_serializer__.to_json(event)


def decode(
    headers: Iterable[tuple[str, bytes]], value: bytes | None, key: bytes | None = None
) -> Decoded | UnknownType | NewerMajor:
    """The event in a record. The key is needed for the tombstones of compacted topics alone.

    Raises MalformedRecord when the record is no event of Muster's at all, or its value breaks the type's schema;
    the message names the field and the rule, and never repeats the value.
    """
    envelope = read_headers(headers)
    event_class = find_event(envelope.type)
    if event_class is None:
        return _not_known(envelope)
    try:
        event = _event(event_class, envelope, value, key)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}" for e in error.errors())
        raise MalformedRecord(f"{envelope.id} is no {envelope.type}: {faults}") from None
    if event.agency_id != envelope.agency_id:
        raise MalformedRecord(f"{envelope.id}: agency_id is not the header ce_partitionkey")
    return Decoded(envelope, event)


def _event(event_class: type[Event], envelope: Envelope, value: bytes | None, key: bytes | None) -> Event:
    if not issubclass(event_class, Erasure):
        return event_class.model_validate_json(value or b"")
    if not key:
        raise MalformedRecord(f"{envelope.id} is a tombstone: its key is needed to read it")
    return event_class(agency_id=envelope.agency_id, subject_ref=key.decode("utf-8", "replace"))


def _not_known(envelope: Envelope) -> UnknownType | NewerMajor:
    split = split_type(envelope.type)
    if split:
        family, major = split
        known = latest_major(family)
        if known is not None and major > known:
            return NewerMajor(envelope, known, major)
    return UnknownType(envelope)

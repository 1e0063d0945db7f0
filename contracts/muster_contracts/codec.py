"""Encodes an event as the value of a Kafka record, and decodes a record to its event."""

from collections.abc import Iterable
from typing import NamedTuple

from pydantic import ValidationError

from muster_contracts.envelope import MAX_TEXT_BYTES, Envelope, MalformedRecord, read_headers, shown
from muster_contracts.event import Erasure, Event, find_event, latest_major, split_type

# How many faults of a value a message names, and how many characters of each.
SHOWN_FAULTS = 5
SHOWN_CHARACTERS = 100


class Decoded(NamedTuple):
    """An event with its envelope."""

    envelope: Envelope
    event: Event


class UnknownType(NamedTuple):
    """A record of a type that this version of the package does not know: store its position, and continue."""

    envelope: Envelope


class NewerMajor(NamedTuple):
    """A newer major version of a type that this version of the package knows.

    The fact may matter to you and cannot be read: stop and upgrade instead of continuing without it.
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
    """The event in a record. Only the tombstones of compacted topics need the key.

    Raises MalformedRecord, and nothing else, if the record is not one of Muster's events, or if its value breaks the
    type's schema. The message is short, and names the field and the rule, never the value.
    """
    envelope = read_headers(headers)
    event_class = find_event(envelope.type)
    if event_class is None:
        return _not_known(envelope)
    try:
        event = _event(event_class, envelope, value, key)
    except MalformedRecord:
        raise
    except Exception as error:  # any error is a defect of this record, and must not stop its reader
        raise MalformedRecord(f"{envelope.id} is not a valid {envelope.type}: {faults(error)}") from None
    if event.agency_id != envelope.agency_id:
        raise MalformedRecord(f"{envelope.id}: agency_id differs from the header ce_partitionkey")
    return Decoded(envelope, event)


def faults(error: Exception) -> str:
    """Why a value cannot be read: the first fields that break a rule, and the rules, but not the value."""
    if not isinstance(error, ValidationError):
        return f"value: {type(error).__name__}"
    found = error.errors(include_input=False, include_url=False, include_context=False)
    named = [f"{_field(fault['loc'])}: {fault['msg'][:SHOWN_CHARACTERS]}" for fault in found[:SHOWN_FAULTS]]
    more = [f"and {len(found) - SHOWN_FAULTS} more"] if len(found) > SHOWN_FAULTS else []
    return "; ".join(named + more)


def _field(place: tuple[str | int, ...]) -> str:
    """A field's name. In a dictionary, it contains one of the value's keys, which may be anything."""
    name = ".".join(map(str, place)) or "value"
    return name if name.isprintable() and len(name) <= SHOWN_CHARACTERS else shown(name)


def _event(event_class: type[Event], envelope: Envelope, value: bytes | None, key: bytes | None) -> Event:
    if not issubclass(event_class, Erasure):
        return event_class.model_validate_json(value or b"")
    return event_class(agency_id=envelope.agency_id, subject_ref=subject_of(key))


def subject_of(key: bytes | None) -> str:
    """Whom a tombstone of a compacted topic erases, from its key. Raises MalformedRecord."""
    if not key:
        raise MalformedRecord("it is a tombstone: its key is needed to read it")
    subject = key.decode("utf-8", "replace")
    if len(key) > MAX_TEXT_BYTES or not subject.isprintable():
        raise MalformedRecord(f"the key of the tombstone is {shown(key)}, not 1 to {MAX_TEXT_BYTES} printable bytes")
    return subject


def _not_known(envelope: Envelope) -> UnknownType | NewerMajor:
    split = split_type(envelope.type)
    if split:
        family, major = split
        known = latest_major(family)
        if known is not None and major > known:
            return NewerMajor(envelope, known, major)
    return UnknownType(envelope)

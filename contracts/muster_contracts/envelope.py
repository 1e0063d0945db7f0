"""CloudEvents 1.0 in Kafka's binary mode: the attributes of an event as record headers.

Sources: CloudEvents 1.0.2, its Kafka protocol binding 3.2, and the documented extensions
`sequence`, `partitioning` and `distributed-tracing`.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

SEQUENCE_DIGITS = 20

Headers = list[tuple[str, bytes]]


class MalformedRecord(ValueError):
    """A record that is not a CloudEvent of Muster's: the message names the header and the rule."""


class Envelope(NamedTuple):
    """What is known of an event besides its data.

    A named tuple: it is made for every record that is read, and a frozen dataclass takes four times as long.
    """

    id: str
    source: str
    type: str
    time: datetime
    agency_id: str
    epoch: int
    sequence: int
    correlation_id: str
    causation_id: str | None = None
    traceparent: str | None = None


def event_id(topic: str, agency_id: str, epoch: int, sequence: int) -> str:
    """The event's id: stable over every re-publication and sortable within its stream."""
    return f"{topic}/{agency_id}/{epoch}/{sequence:0{SEQUENCE_DIGITS}d}"


def source_of(topic: str) -> str:
    """The CloudEvents source of a topic `muster.<service>.<family>`: `/muster/<service>`."""
    return "/" + "/".join(topic.rsplit(".", 1)[0].split(".")[-2:])


def write_headers(envelope: Envelope) -> Headers:
    """The record headers of an event."""
    time = envelope.time if envelope.time.tzinfo is UTC else envelope.time.astimezone(UTC)
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", envelope.id.encode()),
        ("ce_source", envelope.source.encode()),
        ("ce_type", envelope.type.encode()),
        ("ce_time", b"%sZ" % time.isoformat().removesuffix("+00:00").encode()),
        ("ce_partitionkey", envelope.agency_id.encode()),
        ("ce_epoch", b"%d" % envelope.epoch),
        ("ce_sequence", b"%0*d" % (SEQUENCE_DIGITS, envelope.sequence)),
        ("ce_correlationid", envelope.correlation_id.encode()),
        ("content-type", b"application/json"),
    ]
    if envelope.causation_id is not None:
        headers.append(("ce_causationid", envelope.causation_id.encode()))
    if envelope.traceparent is not None:
        headers.append(("ce_traceparent", envelope.traceparent.encode()))
    return headers


def _instant(value: bytes) -> datetime:
    instant = datetime.fromisoformat(value.decode())
    if instant.tzinfo is None:
        raise ValueError("no time zone")
    return instant if instant.tzinfo is UTC else instant.astimezone(UTC)


def _positive(value: bytes) -> int:
    number = int(value) if value.isdigit() else 0
    if number < 1:
        raise ValueError("not positive")
    return number


# The headers and how each is read, in the order of the envelope's fields; and the rules that a bad value breaks.
_REQUIRED: tuple[tuple[str, Callable[[bytes], Any]], ...] = (
    ("ce_id", bytes.decode),
    ("ce_source", bytes.decode),
    ("ce_type", bytes.decode),
    ("ce_time", _instant),
    ("ce_partitionkey", bytes.decode),
    ("ce_epoch", _positive),
    ("ce_sequence", _positive),
    ("ce_correlationid", bytes.decode),
)
_OPTIONAL = ("ce_causationid", "ce_traceparent")
_RULES = {
    "ce_specversion": "1.0",
    "ce_time": "an RFC 3339 instant with a time zone",
    "ce_epoch": "a whole number from 1",
    "ce_sequence": "a whole number from 1",
}


def read_headers(headers: Iterable[tuple[str, bytes]]) -> Envelope:
    """The envelope in a record's headers.

    Raises MalformedRecord when a required attribute is missing or unreadable.
    """
    raw = dict(headers)
    attributes: list[Any] = []
    name = "ce_specversion"
    try:
        if raw[name] != b"1.0":
            raise ValueError(raw[name])
        for name, read in _REQUIRED:
            attributes.append(read(raw[name]))
        for name in _OPTIONAL:
            attributes.append(raw[name].decode() if name in raw else None)
    except KeyError:
        raise MalformedRecord(f"header {name} is missing") from None
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise MalformedRecord(f"header {name} is {raw[name]!r}, not {_RULES.get(name, 'UTF-8')}") from None
    return Envelope._make(attributes)


def write_run_headers(first: Envelope, topic: str, count: int) -> Iterator[Headers]:
    """The record headers of `count` consecutive events of one stream that share all but their sequence."""
    own = {"ce_id", "ce_sequence"}
    shared = [header for header in write_headers(first) if header[0] not in own]
    stem = f"{topic}/{first.agency_id}/{first.epoch}/"
    for sequence in range(first.sequence, first.sequence + count):
        digits = f"{sequence:0{SEQUENCE_DIGITS}d}"
        yield [*shared, ("ce_id", (stem + digits).encode()), ("ce_sequence", digits.encode())]

"""CloudEvents 1.0 in Kafka's binary mode: the attributes of an event as record headers.

Sources: CloudEvents 1.0.2, its Kafka protocol binding 3.2, and the documented extensions
`sequence`, `partitioning` and `distributed-tracing`.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
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


@lru_cache(maxsize=1024)  # the events of a run share their time
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


def _require_version(value: bytes) -> None:
    if value != b"1.0":
        raise ValueError("another version")


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


# How each header is read, and the rule that an unreadable one breaks.
_READERS: dict[str, tuple[Callable[[bytes], Any], str]] = {
    "ce_specversion": (_require_version, "1.0"),
    "ce_id": (bytes.decode, "UTF-8"),
    "ce_source": (bytes.decode, "UTF-8"),
    "ce_type": (bytes.decode, "UTF-8"),
    "ce_time": (_instant, "an RFC 3339 instant with a time zone"),
    "ce_partitionkey": (bytes.decode, "UTF-8"),
    "ce_epoch": (_positive, "a whole number from 1"),
    "ce_sequence": (_positive, "a whole number from 1"),
    "ce_correlationid": (bytes.decode, "UTF-8"),
    "ce_causationid": (_text, "UTF-8"),
    "ce_traceparent": (_text, "UTF-8"),
}
_OPTIONAL = {"ce_causationid", "ce_traceparent"}
_UNREADABLE = (KeyError, ValueError, TypeError, AttributeError, OverflowError)


def read_headers(headers: Iterable[tuple[str, bytes]]) -> Envelope:
    """The envelope in a record's headers.

    Raises MalformedRecord when a required attribute is missing or unreadable.
    """
    raw = dict(headers)
    try:
        # Written out, since every record of every topic comes this way.
        _require_version(raw["ce_specversion"])
        return Envelope(
            raw["ce_id"].decode(),
            raw["ce_source"].decode(),
            raw["ce_type"].decode(),
            _instant(raw["ce_time"]),
            raw["ce_partitionkey"].decode(),
            _positive(raw["ce_epoch"]),
            _positive(raw["ce_sequence"]),
            raw["ce_correlationid"].decode(),
            _text(raw.get("ce_causationid")),
            _text(raw.get("ce_traceparent")),
        )
    except _UNREADABLE:
        raise MalformedRecord(_defect(raw)) from None


def _defect(raw: dict[str, bytes]) -> str:
    """The first header that is missing or breaks its rule."""
    for name, (read, rule) in _READERS.items():
        try:
            read(raw[name])
        except KeyError:
            if name not in _OPTIONAL:
                return f"header {name} is missing"
        except _UNREADABLE:
            return f"header {name} is {raw[name]!r}, not {rule}"
    raise AssertionError("every header can be read")


def write_run_headers(first: Envelope, topic: str, count: int) -> Iterator[Headers]:
    """The record headers of `count` consecutive events of one stream that share all but their sequence."""
    own = {"ce_id", "ce_sequence"}
    shared = [header for header in write_headers(first) if header[0] not in own]
    stem = f"{topic}/{first.agency_id}/{first.epoch}/"
    for sequence in range(first.sequence, first.sequence + count):
        digits = f"{sequence:0{SEQUENCE_DIGITS}d}"
        yield [*shared, ("ce_id", (stem + digits).encode()), ("ce_sequence", digits.encode())]

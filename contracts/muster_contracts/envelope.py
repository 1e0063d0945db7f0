"""CloudEvents 1.0 in Kafka's binary mode: the attributes of an event as record headers.

Sources: CloudEvents 1.0.2, its Kafka protocol binding 3.2, and the documented extensions
`sequence`, `partitioning` and `distributed-tracing`.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

SEQUENCE_DIGITS = 20

# What a reader keeps in a 32-bit and a 64-bit column; a text attribute is part of keys.
MAX_EPOCH = 2**31 - 1
MAX_SEQUENCE = 2**63 - 1
MAX_TEXT_BYTES = 256
MAX_TIME_BYTES = 40

# RFC 3339, which other languages read alike; Python takes more of ISO 8601, and what it takes grows by its version.
_RFC_3339 = re.compile(rb"\d{4}-\d\d-\d\dT([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)")

# How much of what is refused a message shows.
SHOWN_BYTES = 40

Headers = list[tuple[str, bytes]]


class MalformedRecord(ValueError):
    """A record that is not a CloudEvent of Muster's: the message names the header or field and the rule, briefly."""


class Envelope(NamedTuple):
    """An event's metadata.

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
    if len(value) > MAX_TIME_BYTES or not _RFC_3339.fullmatch(value):
        raise ValueError("no instant")
    instant = datetime.fromisoformat(value.decode())
    return instant if instant.tzinfo is UTC else instant.astimezone(UTC)


def _number(value: bytes, most: int) -> int:
    number = int(value) if len(value) <= SEQUENCE_DIGITS and value.isdigit() else 0
    if not 1 <= number <= most:
        raise ValueError("out of range")
    return number


def _require_version(value: bytes) -> None:
    if value != b"1.0":
        raise ValueError("another version")


def _text(value: bytes) -> str:
    text = value.decode()
    if not 0 < len(value) <= MAX_TEXT_BYTES or not text.isprintable():
        raise ValueError("no attribute's text")
    return text


def _optional_text(value: bytes | None) -> str | None:
    return None if value is None else _text(value)


_TEXT_RULE = f"1 to {MAX_TEXT_BYTES} bytes of printable UTF-8"

# How each header is read, and the rule that an unreadable one breaks.
_READERS: dict[str, tuple[Callable[[bytes], Any], str]] = {
    "ce_specversion": (_require_version, "1.0"),
    "ce_id": (_text, _TEXT_RULE),
    "ce_source": (_text, _TEXT_RULE),
    "ce_type": (_text, _TEXT_RULE),
    "ce_time": (_instant, "an RFC 3339 instant with a time zone"),
    "ce_partitionkey": (_text, _TEXT_RULE),
    "ce_epoch": (lambda value: _number(value, MAX_EPOCH), f"a whole number from 1 to {MAX_EPOCH}"),
    "ce_sequence": (lambda value: _number(value, MAX_SEQUENCE), f"a whole number from 1 to {MAX_SEQUENCE}"),
    "ce_correlationid": (_text, _TEXT_RULE),
    "ce_causationid": (_optional_text, _TEXT_RULE),
    "ce_traceparent": (_optional_text, _TEXT_RULE),
}
OPTIONAL_HEADERS = {"ce_causationid", "ce_traceparent"}

# All headers that Muster writes, but for those of one event alone.
_SHARED = {*_READERS, "content-type"} - {"ce_id", "ce_sequence"}

# The headers that the last event shares with those of its run, and what was read of them: mostly the next event's too.
_last_run: list[tuple[Any, Any]] = [((), ())]


def read_headers(headers: Iterable[tuple[str, bytes]]) -> Envelope:
    """The envelope in a record's headers.

    Raises MalformedRecord when a required attribute is missing, one is given twice, or one breaks its rule.
    """
    headers = tuple(headers)
    try:
        if headers[-2][0] == "ce_id" and headers[-1][0] == "ce_sequence":  # as Muster's relay writes them
            shared = headers[:-2]
            known, of_run = _last_run[0]
            if shared != known:
                of_run = _of_run(shared)
                _last_run[0] = (shared, of_run)
            source, type_, time, agency_id, epoch, correlation_id, causation_id, traceparent = of_run
            id_, sequence = _text(headers[-2][1]), _number(headers[-1][1], MAX_SEQUENCE)
            return Envelope(
                id_, source, type_, time, agency_id, epoch, sequence, correlation_id, causation_id, traceparent
            )
    except Exception:  # noqa: S110 - another order, or a defect, which is named below
        pass
    try:
        raw = dict(headers)
        if len(raw) != len(headers):
            _require_single(headers)
        _require_version(raw["ce_specversion"])
        return Envelope(
            _text(raw["ce_id"]),
            _text(raw["ce_source"]),
            _text(raw["ce_type"]),
            _instant(raw["ce_time"]),
            _text(raw["ce_partitionkey"]),
            _number(raw["ce_epoch"], MAX_EPOCH),
            _number(raw["ce_sequence"], MAX_SEQUENCE),
            _text(raw["ce_correlationid"]),
            _optional_text(raw.get("ce_causationid")),
            _optional_text(raw.get("ce_traceparent")),
        )
    except MalformedRecord:
        raise
    except Exception:  # whatever it is, it is this record's defect, and must not stop its reader
        raise MalformedRecord(_defect(headers)) from None


def _of_run(headers: tuple[tuple[str, bytes], ...]) -> tuple[Any, ...]:
    """The values that a run's events share. Raises an error of any kind if one is invalid."""
    raw = dict(headers)
    if len(raw) != len(headers) or not raw.keys() <= _SHARED or len(raw["content-type"]) > MAX_TEXT_BYTES:
        raise MalformedRecord("not the headers of a run")
    _require_version(raw["ce_specversion"])
    return (
        _text(raw["ce_source"]),
        _text(raw["ce_type"]),
        _instant(raw["ce_time"]),
        _text(raw["ce_partitionkey"]),
        _number(raw["ce_epoch"], MAX_EPOCH),
        _text(raw["ce_correlationid"]),
        _optional_text(raw.get("ce_causationid")),
        _optional_text(raw.get("ce_traceparent")),
    )


def _require_single(headers: tuple[tuple[str, bytes], ...]) -> None:
    """Of an attribute that is given twice, readers would take different values."""
    for name, count in Counter(name for name, _ in headers).items():
        if count > 1 and name in _READERS:
            raise MalformedRecord(f"header {name} appears {count} times, not once")


def _defect(headers: tuple[tuple[str, bytes], ...]) -> str:
    """The first header that is missing or breaks its rule."""
    try:
        raw = dict(headers)
    except Exception:
        return "the headers are not pairs of names and values"
    for name, (read, rule) in _READERS.items():
        try:
            read(raw[name])
        except KeyError:
            if name not in OPTIONAL_HEADERS:
                return f"header {name} is missing"
        except Exception:
            return f"header {name} is {shown(raw[name])}, not {rule}"
    raise AssertionError("every header can be read")


def shown(value: bytes | str | None) -> str:
    """A rejected value for an error message: escaped, and truncated if it is long."""
    if value is None or len(value) <= SHOWN_BYTES:
        return ascii(value)
    return f"{value[:SHOWN_BYTES]!a}... ({len(value):,} in all)"


def write_run_headers(first: Envelope, topic: str, count: int) -> Iterator[Headers]:
    """The record headers of `count` consecutive events of one stream that share all but their sequence."""
    own = {"ce_id", "ce_sequence"}
    shared = [header for header in write_headers(first) if header[0] not in own]
    stem = f"{topic}/{first.agency_id}/{first.epoch}/"
    for sequence in range(first.sequence, first.sequence + count):
        digits = f"{sequence:0{SEQUENCE_DIGITS}d}"
        yield [*shared, ("ce_id", (stem + digits).encode()), ("ce_sequence", digits.encode())]

"""Reported use: reads its events, and checks whether they can still count."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from typing import NamedTuple, Protocol

from pydantic_core import from_json

from muster_contracts import is_agency_id
from muster_runtime.errors import InvalidInput, rfc3339

EVENT_TYPE = "muster.entitlements.FeatureUsed.v1"
MOST_USES = 1_000_000
LONGEST_TEXT = 256
EVENT_BYTES = 16

# The size that every consumer should accept (CloudEvents 1.0.2, section 5). A larger record is parked, without most of
# its content.
LARGEST_RECORD = 64 * 1024

# How long after a period's end its late events still count.
CLOSES_AFTER = timedelta(days=5)

# Older use cannot be in an open period: no month is longer than this, in any time zone.
OLDEST = timedelta(days=32) + CLOSES_AFTER

# How long a record can wait for its agency and still count by when it arrived. The hashes of counted events, and what
# adoption looks back at, reach further back than the oldest use that then counts.
LONGEST_WAIT = timedelta(days=5)

# How long a record that could not be counted is kept. After that, its use could not count even if it were corrected.
PARKED_FOR = timedelta(days=45)

# How many of them are kept; the batch that reaches the limit may exceed it. Then later records wait on their topic.
MOST_PARKED = 100_000

# A reporter's clock may differ from ours.
TOLERATED_SKEW = timedelta(minutes=1)

_ATTRIBUTES = ("specversion", "source", "id", "type", "time")
_HEADERS = tuple(f"ce_{name}" for name in _ATTRIBUTES)
_STRUCTURED = "application/cloudevents+json"
_BATCH = "application/cloudevents-batch+json"

# RFC 3339, section 5.6.
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_SUBJECT_REF = re.compile(r"sub_[0-9a-f]{32}")

# What identifies an event, so that it counts once: its agency, the hash of its source and ID, and its day (UTC).
Identity = tuple[str, bytes, date]


class Use(NamedTuple):
    """A person used a feature `amount` times at an instant.

    `event` is a hash of the event's source and ID, of EVENT_BYTES bytes. `content` is a 64-bit hash of what the event
    says. `name` is the event's ID as its producer sent it.
    """

    agency_id: str
    feature: str
    subject_ref: str
    amount: int
    at: datetime
    event: bytes
    content: int
    name: str

    @property
    def identity(self) -> Identity:
        """What identifies the event: the same source and ID on another day are another event."""
        return self.agency_id, self.event, self.at.date()


def read_use(event: object) -> Use:
    """Read the use from a CloudEvent (CloudEvents 1.0.2, 2.4). Raises InvalidInput, which names the attribute."""
    if not isinstance(event, dict):
        raise InvalidInput("event", event, "must be a CloudEvent: a JSON object")
    return _read(*map(event.get, ("data", *_ATTRIBUTES)))


class KafkaRecord(Protocol):
    """A record as read from Kafka."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...
    @property
    def value(self) -> bytes | None: ...


def size_of(record: KafkaRecord) -> int:
    """The size of a record's key, headers, and value, in bytes."""
    size = len(record.key or b"") + len(record.value or b"")
    for name, content in record.headers:
        size += len(name) + len(content or b"")
    return size


def read_record(record: KafkaRecord) -> Use:
    """Read the use from a Kafka record, in either mode of CloudEvents' Kafka binding 1.0.2. Raises InvalidInput."""
    headers, value = record.headers, record.value
    if (size := size_of(record)) > LARGEST_RECORD:
        raise InvalidInput("record", f"{size} bytes", f"must have at most {LARGEST_RECORD} bytes")
    try:
        attributes = {name.lower(): content.decode() for name, content in headers if content is not None}
    except UnicodeDecodeError:
        raise InvalidInput("headers", "bytes", "must be UTF-8") from None
    try:
        content = from_json(value or b"")
    except ValueError:
        raise InvalidInput("value", (value or b"")[:40], "must be JSON") from None
    media_type = attributes.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == _BATCH:
        raise InvalidInput("content-type", media_type, "must be of one event: a batch is accepted only over HTTP")
    if media_type == _STRUCTURED:
        return read_use(content)
    return _read(content, *map(attributes.get, _HEADERS))


def _read(data: object, version: object, source: object, name: object, type_: object, time: object) -> Use:
    """Read the use from an event's data and _ATTRIBUTES. Raises InvalidInput."""
    if version != "1.0":
        raise InvalidInput("specversion", version, "must be 1.0")
    source, name = _text("source", source), _text("id", name)
    if type_ != EVENT_TYPE:
        raise InvalidInput("type", type_, f"must be {EVENT_TYPE}")
    if not isinstance(data, dict):
        raise InvalidInput("data", data, "must be an object with agency_id, subject_ref, feature, and amount")
    agency_id, feature, amount = data.get("agency_id"), data.get("feature"), data.get("amount", 1)
    if not isinstance(agency_id, str) or not is_agency_id(agency_id):
        raise InvalidInput("data.agency_id", agency_id, "must be an agency's ID, such as NASA")
    if not isinstance(feature, str) or not feature.isprintable():
        raise InvalidInput("data.feature", feature, "must be a feature of the catalog")
    if type(amount) is not int or not 1 <= amount <= MOST_USES:
        raise InvalidInput("data.amount", amount, f"must be a whole number from 1 to {MOST_USES}")
    subject = data.get("subject_ref")
    if not isinstance(subject, str) or not _SUBJECT_REF.fullmatch(subject):
        raise InvalidInput("data.subject_ref", subject, "must be sub_ and 32 hexadecimal digits, not an address")
    at = _instant(time)
    content = f"{agency_id}|{feature}|{subject}|{amount}|{at.timestamp()}"
    return Use(
        agency_id,
        feature,
        subject,
        amount,
        at,
        blake2b(f"{source}\n{name}".encode(), digest_size=EVENT_BYTES).digest(),
        int.from_bytes(blake2b(content.encode(), digest_size=8).digest(), signed=True),
        name,
    )


def check_time(at: datetime, now: datetime, arrived_at: datetime) -> None:
    """Check that a use is at most a minute in the future, and was not too old for any open period when it arrived.

    Raises InvalidInput.
    """
    if at > now + TOLERATED_SKEW:
        raise InvalidInput("time", at, f"must be at most a minute in the future: now is {rfc3339(now)}")
    if at < arrived_at - OLDEST:
        raise InvalidInput("time", at, f"must be in a period that ended less than {CLOSES_AFTER.days} days ago")


def check_open(at: datetime, ends_at: datetime, arrived_at: datetime) -> None:
    """Check that the period of a use, which ends at `ends_at`, was not closed when it arrived. Raises InvalidInput."""
    if arrived_at >= ends_at + CLOSES_AFTER:
        raise InvalidInput(
            "time",
            at,
            f"must be in a period that ended less than {CLOSES_AFTER.days} days ago; its period ended at "
            f"{rfc3339(ends_at)}",
        )


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= LONGEST_TEXT:
        raise InvalidInput(name, value, f"must be 1 to {LONGEST_TEXT} printable characters")
    return value


def _instant(value: object) -> datetime:
    if isinstance(value, str) and _INSTANT.fullmatch(value):
        try:
            at = datetime.fromisoformat(value.upper())
            return at if at.tzinfo is UTC else at.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise InvalidInput("time", value, "must be an instant with a time zone (RFC 3339), such as 2025-08-06T12:00:00Z")

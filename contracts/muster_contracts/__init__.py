"""Muster's contracts: the events, their envelope, their topics."""

from muster_contracts import billing, enrollment, entitlements, notify
from muster_contracts.clock import ClockMoved
from muster_contracts.codec import Decoded, NewerMajor, UnknownType, decode, encode, faults, subject_of
from muster_contracts.envelope import (
    MAX_EPOCH,
    MAX_SEQUENCE,
    Envelope,
    MalformedRecord,
    event_id,
    read_headers,
    source_of,
    write_headers,
    write_run_headers,
)
from muster_contracts.event import Deprecation, Erasure, Event, event_types, split_type
from muster_contracts.streams import (
    BEFORE_FIRST,
    Duplicate,
    Gap,
    New,
    NewEpoch,
    Position,
    Sighting,
    StreamTracker,
    judge,
)
from muster_contracts.topics import SERVICES, Topic, topics
from muster_contracts.types import AgencyId, Instant, Money, is_agency_id

__version__ = "0.7.1"

__all__ = [
    "BEFORE_FIRST",
    "MAX_EPOCH",
    "MAX_SEQUENCE",
    "SERVICES",
    "AgencyId",
    "ClockMoved",
    "Decoded",
    "Deprecation",
    "Duplicate",
    "Envelope",
    "Erasure",
    "Event",
    "Gap",
    "Instant",
    "MalformedRecord",
    "Money",
    "New",
    "NewEpoch",
    "NewerMajor",
    "Position",
    "Sighting",
    "StreamTracker",
    "Topic",
    "UnknownType",
    "billing",
    "decode",
    "encode",
    "enrollment",
    "entitlements",
    "event_id",
    "event_types",
    "faults",
    "is_agency_id",
    "judge",
    "notify",
    "read_headers",
    "source_of",
    "split_type",
    "subject_of",
    "topics",
    "write_headers",
    "write_run_headers",
]

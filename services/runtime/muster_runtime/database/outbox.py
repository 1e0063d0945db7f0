"""The outbox: the events that transactions publish, stored as runs until Kafka acknowledges them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from muster_runtime.database.writes import Write
from muster_runtime.errors import InvalidInput

# The channel that wakes a service's relay and scheduler; its payload is the schema.
WAKE_CHANNEL = "muster_wake"

# More events of one type than this are split into several runs, so that a row stays well below a megabyte.
RUN_LENGTH = 500

# Kafka's batches are limited to a megabyte. An event that could not be relayed must not be recorded.
EVENT_BYTES = 900_000

# How many bytes of payloads one statement may contain: a message to Postgres must stay below a gigabyte.
STATEMENT_BYTES = 16_000_000

# Assigns the runs' sequences, under their agencies' locks, and stores the runs in order.
_APPEND = """
run as (
    select
        *,
        sum(events) over (partition by topic, agency_id) as in_stream,
        sum(events) over (partition by topic, agency_id order by place) as up_to,
        (sum(events) over (order by place))::integer as last_record
    from unnest(
        $1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::text[], $8::integer[],
        $9::boolean[]
    ) with ordinality as r(
        topic, agency_id, type, time, correlation_id, causation_id, traceparent, events, has_keys, place
    )
),
advanced as (
    insert into stream as s (topic, agency_id, epoch, last_sequence)
    select topic, agency_id, (select number from epoch), sum(events)
    from run
    group by topic, agency_id
    on conflict (topic, agency_id) do update set last_sequence = s.last_sequence + excluded.last_sequence
    returning topic, agency_id, epoch, last_sequence
),
appended as (
    insert into outbox (
        topic, agency_id, epoch, first_sequence, type, time, correlation_id, causation_id, traceparent,
        recorded_at, events, keys, payloads
    )
    select
        r.topic, r.agency_id, a.epoch, a.last_sequence - r.in_stream + r.up_to - r.events + 1, r.type, r.time,
        r.correlation_id, r.causation_id, r.traceparent, $10, r.events,
        case when r.has_keys then ($11::text[])[r.last_record - r.events + 1 : r.last_record] end,
        ($12::bytea[])[r.last_record - r.events + 1 : r.last_record]
    from run as r
    join advanced as a using (topic, agency_id)
    order by r.place
)
"""


# The key and the value of a record; a value of None is a tombstone.
OutboxRecord = tuple[str, bytes | None]


class RunKey(NamedTuple):
    """What all events of one run have in common; `time` is when their facts became true."""

    topic: str
    agency_id: str
    event_type: str
    time: datetime
    correlation_id: str
    causation_id: str | None
    traceparent: str | None


class Entry(NamedTuple):
    """Records of one run to publish, or a part of them."""

    run: RunKey
    records: Sequence[OutboxRecord]


class States:
    """Records of compacted topics that wait for the end of their transaction: only the last one of each key."""

    def __init__(self) -> None:
        self._runs: dict[RunKey, dict[str, bytes | None]] = {}

    def add(self, run: RunKey, records: Mapping[str, bytes | None]) -> None:
        """Add records; each replaces an earlier one with the same key."""
        for other, others in self._runs.items():
            if other.topic == run.topic and other != run:
                for key in records.keys() & others.keys():
                    del others[key]
        self._runs.setdefault(run, {}).update(records)

    def take(self) -> list[Entry]:
        """Take all records out."""
        runs, self._runs = self._runs, {}
        return [Entry(run, list(records.items())) for run, records in runs.items() if records]


def append(entries: Sequence[Entry], now: datetime) -> Iterator[Write]:
    """The statements that append events in order, each with the next sequence of its stream; usually one statement.

    The transaction must hold the lock of every agency concerned.
    """
    runs: list[Entry] = []
    size = 0
    for run in _runs(entries):
        run_bytes = sum(len(payload or b"") for _, payload in run.records)
        if runs and size + run_bytes > STATEMENT_BYTES:
            yield _APPEND, _arguments(runs, now)
            runs, size = [], 0
        runs.append(run)
        size += run_bytes
    if runs:
        yield _APPEND, _arguments(runs, now)


def _runs(entries: Sequence[Entry]) -> Iterator[Entry]:
    for shared, group in groupby(entries, key=lambda entry: entry.run):
        records = [record for entry in group for record in entry.records]
        for start in range(0, len(records), RUN_LENGTH):
            yield Entry(shared, records[start : start + RUN_LENGTH])


def _arguments(runs: Sequence[Entry], now: datetime) -> Sequence[object]:
    has_keys = [records[0][0] != shared.agency_id for shared, records in runs]
    records = [record for _, records in runs for record in records]
    return [
        *map(list, zip(*(shared for shared, _ in runs), strict=True)),
        [len(records) for _, records in runs],
        has_keys,
        now,
        [key for key, _ in records] if any(has_keys) else [],
        [payload for _, payload in records],
    ]


def require_sizes(event_type: str, records: Iterable[OutboxRecord]) -> None:
    """Refuse records too large for Kafka. Raises InvalidInput."""
    for _, payload in records:
        if payload is not None and len(payload) > EVENT_BYTES:
            raise InvalidInput(event_type, len(payload), f"must be at most {EVENT_BYTES} bytes")

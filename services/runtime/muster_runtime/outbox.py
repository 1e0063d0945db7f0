"""The outbox: events that a transaction publishes, kept as runs until Kafka has acknowledged them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING

from muster_contracts import Erasure, Event
from muster_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from muster_runtime.db import Connection

# The channel that wakes a service's relay and scheduler; its payload is the schema.
WAKE_CHANNEL = "muster_wake"

# More events of one type than this are cut into several runs, so that a row stays well below a megabyte.
RUN_LENGTH = 500

# Kafka's batches end at a megabyte; what could not be relayed must not be recorded.
EVENT_BYTES = 900_000

# One statement takes the run's sequences, under the agency's lock, and keeps the run. NOTIFY takes a
# cluster-wide lock at commit: Postgres folds equal notifications, so a transaction makes only one.
_APPEND = """
with stream_ as (
    insert into stream as s (topic, agency_id, epoch, last_sequence)
    values ($1, $2, (select number from epoch), $3)
    on conflict (topic, agency_id) do update set last_sequence = s.last_sequence + excluded.last_sequence
    returning epoch, last_sequence
)
insert into outbox (
    topic, agency_id, epoch, first_sequence, type, time, correlation_id, causation_id, traceparent,
    recorded_at, events, keys, payloads
)
select $1, $2, epoch, last_sequence - $3 + 1, $4, $5, $6, $7, $8, $9, $3, $10::text[], $11::bytea[]
from stream_
returning pg_notify('muster_wake', current_schema())
"""


# Topic, agency, type, time, correlation id, causation id and traceparent.
RunKey = tuple[str, str, str, datetime, str, str | None, str | None]


@dataclass(frozen=True, slots=True)
class Entry:
    """An event to be published: when it became true and what led to it."""

    event: Event
    time: datetime
    causation_id: str | None
    correlation_id: str
    traceparent: str | None

    @property
    def run(self) -> RunKey:
        """What all events of one run have in common."""
        event = self.event
        return (
            event.topic,
            event.agency_id,
            event.event_type,
            self.time,
            self.correlation_id,
            self.causation_id,
            self.traceparent,
        )

    @property
    def records(self) -> Sequence[tuple[str, bytes | None]]:
        """Key and value of the record."""
        return [(self.event.record_key, _payload(self.event))]


@dataclass(frozen=True, slots=True)
class Written:
    """Records of one type that are written already: a model for each would cost a bulk's work five times.

    A record is its key and its value; None is a tombstone.
    """

    run: RunKey
    records: Sequence[tuple[str, bytes | None]]


async def append(
    connection: "Connection",
    entries: Sequence[Entry | Written],
    now: datetime,
    *,
    wake: bool = False,
) -> None:
    """Append events in their order, each with the next sequence of its stream, and wake the relay.

    The transaction must hold the lock of every agency concerned.
    """
    if entries:
        await connection.executemany(_APPEND, list(_rows(entries, now)))
    elif wake:
        await connection.execute("select pg_notify('muster_wake', current_schema())")


def _rows(entries: Sequence[Entry | Written], now: datetime) -> Iterator[tuple[object, ...]]:
    for shared, group in groupby(entries, key=lambda entry: entry.run):
        topic, agency_id, event_type, time, correlation_id, causation_id, traceparent = shared
        records = [record for entry in group for record in entry.records]
        for start in range(0, len(records), RUN_LENGTH):
            run = records[start : start + RUN_LENGTH]
            yield (
                topic,
                agency_id,
                len(run),
                event_type,
                time,
                correlation_id,
                causation_id,
                traceparent,
                now,
                None if run[0][0] == agency_id else [key for key, _ in run],
                [payload for _, payload in run],
            )


def _payload(event: Event) -> bytes | None:
    if isinstance(event, Erasure):
        return None
    payload = event.__pydantic_serializer__.to_json(event)
    if len(payload) > EVENT_BYTES:
        raise InvalidInput(event.event_type, len(payload), f"an event has at most {EVENT_BYTES} bytes")
    return payload

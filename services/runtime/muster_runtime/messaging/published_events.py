"""Events as their topics have them, compared with those that wait in the outbox."""

from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

from aiokafka import ConsumerRecord

from muster_contracts import MalformedRecord, Position, event_id, read_headers
from muster_runtime.database.transactions import Database
from muster_runtime.messaging.positions import StreamKey

# What distinguishes two events at one position: the time and correlation ID of their runs, and the SHA-256 hash of the
# payload (None for a tombstone). An event that is applied again has effects at the same time, but with new IDs.
Identity = tuple[datetime, str, bytes | None]


class PublishedEvent(NamedTuple):
    """An event on its topic."""

    topic: str
    agency_id: str
    position: Position
    identity: Identity
    partition: int
    offset: int

    @property
    def stream(self) -> StreamKey:
        return self.topic, self.agency_id


class WaitingEvent(NamedTuple):
    """The event that the outbox has at a published event's sequence, in the same or another epoch, and its run's ID."""

    published: PublishedEvent
    run_id: int
    epoch: int
    identity: Identity

    @property
    def is_published(self) -> bool:
        """Whether it is the same event."""
        return self.identity == self.published.identity


class _Run(NamedTuple):
    """A run of the outbox."""

    id: int
    epoch: int
    first_sequence: int
    events: int
    time: datetime
    correlation_id: str


def events_of(records: Iterable[ConsumerRecord[bytes, bytes]], topic_prefix: str) -> Iterator[PublishedEvent]:
    """The records that are events and whose ID is the one that the relay gives to their position."""
    for record in records:
        try:
            envelope = read_headers(record.headers)
        except MalformedRecord:
            continue  # not one of our events
        topic, position = record.topic.removeprefix(topic_prefix), Position(envelope.epoch, envelope.sequence)
        if envelope.id == event_id(topic, envelope.agency_id, *position):
            digest = None if record.value is None else sha256(record.value).digest()
            identity = envelope.time, envelope.correlation_id, digest
            yield PublishedEvent(topic, envelope.agency_id, position, identity, record.partition, record.offset)


async def waiting_at(database: Database, events: Sequence[PublishedEvent]) -> list[WaitingEvent]:
    """What the outbox has at the sequences of these events.

    In the outbox, a sequence is unique in its stream: it continues when the epoch is raised.
    """
    runs = await _runs_among(database, events)
    found: list[tuple[PublishedEvent, _Run]] = []
    for event in events:
        of_stream = runs[event.stream]
        place = bisect(of_stream, event.position.sequence, key=lambda run: run.first_sequence) - 1
        if place >= 0 and event.position.sequence < of_stream[place].first_sequence + of_stream[place].events:
            found.append((event, of_stream[place]))
    digests = await _digests(database, {run.id for _, run in found})
    return [
        WaitingEvent(
            event,
            run.id,
            run.epoch,
            (run.time, run.correlation_id, digests[run.id][event.position.sequence - run.first_sequence]),
        )
        for event, run in found
        if run.id in digests  # otherwise the relay has deleted it meanwhile
    ]


async def _runs_among(database: Database, events: Sequence[PublishedEvent]) -> defaultdict[StreamKey, list[_Run]]:
    """The runs between the lowest and the highest sequence of these events, by stream, in order."""
    sequences: dict[StreamKey, list[int]] = {}
    for event in events:
        sequences.setdefault(event.stream, []).append(event.position.sequence)
    async with database.connection() as connection:
        rows = await connection.fetch(
            """
            select topic, agency_id, id, epoch, first_sequence, events, time, correlation_id
            from outbox
            join unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])
                as published (topic, agency_id, first, last) using (topic, agency_id)
            where first_sequence <= last and first_sequence + events > first
            order by first_sequence
            """,
            [topic for topic, _ in sequences],
            [agency_id for _, agency_id in sequences],
            [min(each) for each in sequences.values()],
            [max(each) for each in sequences.values()],
        )
    runs = defaultdict(list)
    for topic, agency_id, *run in rows:
        runs[topic, agency_id].append(_Run(*run))
    return runs


async def _digests(database: Database, ids: Iterable[int]) -> dict[int, Sequence[bytes | None]]:
    """The hashes of the payloads of these runs, by ID."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            """
            select
                id,
                array(select sha256(payload) from unnest(payloads) with ordinality as p (payload, place) order by place)
                    as digests
            from outbox
            where id = any($1::bigint[])
            """,
            list(ids),
        )
    return {row["id"]: row["digests"] for row in rows}

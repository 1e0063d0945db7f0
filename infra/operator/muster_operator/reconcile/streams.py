"""Compares every stream's end on its topic with what its producer assigned and each reader applied."""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import asyncpg
from aiokafka import ConsumerRecord

from muster_contracts import SERVICES, Envelope, MalformedRecord, Position, event_id, read_headers, topics
from muster_contracts.clock import ClockMoved
from muster_operator.databases.reading import reading

if TYPE_CHECKING:
    from muster_runtime.messaging.passing import OffsetRange

Stream = tuple[str, str]  # topic, agency
Partition = tuple[str, int]  # topic, number

# The topics with streams: all except the sandbox clock's and the one for reported use.
TOPICS = tuple(name for name, topic in topics().items() if topic.producers == "owner" and name != ClockMoved.topic)

NOT_PUBLISHED = "events that are not published yet"
TOPIC_LACKS = "events that the topic lacks"
LOST_COMMITS = "a producer that lost commits"
PARKED = "a parked stream"
BEHIND = "a reader that is behind"
NOT_APPLIED = "events that were read and are not applied"

# The position of a stream without events; epochs begin with 1.
NOTHING = Position(0, 0)


def position_of(shown: Mapping[str, int] | None) -> Position:
    """A position in a service's reply; NOTHING if the reply has none."""
    return NOTHING if shown is None else Position(shown["epoch"], shown["sequence"])


@dataclass(frozen=True, slots=True)
class End:
    """The last event of a stream on its topic, the SHA-256 hash of its payload, and its record's place."""

    position: Position
    event: Envelope
    digest: bytes | None
    partition: int
    offset: int


@dataclass(frozen=True)
class Streams:
    """The streams in one service's runtime tables."""

    produced: Mapping[Stream, Position]
    applied: Mapping[Stream, Position]
    parked: Mapping[Stream, str]
    waiting: Mapping[Stream, Position]  # the first event in the outbox
    reassigned: frozenset[Stream]  # the outbox has another event at the position of the topic's last one
    next_offsets: Mapping[Partition, int]  # where reading continues
    epoch: int  # of new streams
    passed: Collection["OffsetRange"]  # that an operator let the service skip


@dataclass(frozen=True, order=True)
class Missing:
    """The part of a stream that a service lacks, after `after` up to `last`, and what an operator can do about it."""

    topic: str
    agency_id: str
    service: str
    what: str
    after: Position
    last: Position
    remedy: str
    reason: str = ""  # why it is parked

    @property
    def why(self) -> str:
        """What is wrong, with the reason if there is one."""
        return f"{self.what}: {self.reason}" if self.reason else self.what

    @property
    def stream(self) -> Stream:
        return self.topic, self.agency_id

    @property
    def sequences(self) -> str:
        """The missing sequences as text, such as `3 to 7`."""
        (known, after), (epoch, last) = self.after, self.last
        if self.last <= self.after:
            return "none"
        if known not in (0, epoch):
            return f"after {after:,} (epoch {known}), up to {last:,} (epoch {epoch})"
        first = f"{after + 1:,} to " if last > after + 1 else ""
        return f"{first}{last:,}" + (f" (epoch {epoch})" if epoch > 1 else "")


class Ends(dict[Stream, End]):
    """The end of each stream among the records read so far."""

    def note(self, topic: str, record: "ConsumerRecord[Any, Any]") -> Envelope | None:
        """Add a topic's record. Returns its envelope; None if it is not an event of ours, which a reader parks."""
        try:
            envelope = read_headers(record.headers)
        except MalformedRecord:
            return None
        stream, position = (topic, envelope.agency_id), Position(envelope.epoch, envelope.sequence)
        known = self.get(stream)
        if known is None or position > known.position:
            digest = None if record.value is None else sha256(record.value).digest()
            self[stream] = End(position, envelope, digest, record.partition, record.offset)
        return envelope


async def read_streams(
    admin_dsn: str, ends: Mapping[Stream, End], services: Sequence[str] = SERVICES
) -> dict[str, Streams]:
    """Read these services' tables, each in its own snapshot. `ends` are the ends known so far."""

    async def read(connection: "asyncpg.Connection[Any]") -> Streams:
        return await _streams(connection, ends)

    found = await asyncio.gather(*(within(admin_dsn, service, read) for service in services))
    return dict(zip(services, found, strict=True))


async def within(admin_dsn: str, schema: str, read: Any) -> Any:
    """The result of `read` in a service's schema, in one snapshot."""
    async with reading(admin_dsn, schema) as connection, connection.transaction(isolation="repeatable_read"):
        return await read(connection)


async def _streams(connection: "asyncpg.Connection[Any]", ends: Mapping[Stream, End]) -> Streams:
    # Imported late: it loads the services' routes, which would slow down the help and the group's other commands.
    from muster_runtime.messaging import passing

    produced = await connection.fetch("select topic, agency_id, epoch, last_sequence from stream")
    applied = await connection.fetch("select topic, agency_id, epoch, last_sequence from applied")
    parked = await connection.fetch("select topic, agency_id, reason from parked_stream")
    waiting = await connection.fetch(
        """
        select distinct on (topic, agency_id) topic, agency_id, epoch, first_sequence
        from outbox
        order by topic, agency_id, id
        """
    )
    offsets = await connection.fetch("select topic, kafka_partition, next_offset from consumed_partition")
    return Streams(
        {(r["topic"], r["agency_id"]): Position(r["epoch"], r["last_sequence"]) for r in produced},
        {(r["topic"], r["agency_id"]): Position(r["epoch"], r["last_sequence"]) for r in applied},
        {(r["topic"], r["agency_id"]): r["reason"] for r in parked},
        {(r["topic"], r["agency_id"]): Position(r["epoch"], r["first_sequence"]) for r in waiting},
        await _reassigned(connection, ends),
        {(r["topic"], r["kafka_partition"]): r["next_offset"] for r in offsets},
        await connection.fetchval("select number from epoch"),
        await passing.passed(connection, TOPICS),
    )


async def _reassigned(connection: "asyncpg.Connection[Any]", ends: Mapping[Stream, End]) -> frozenset[Stream]:
    """The streams with a different event in the outbox at the position of the topic's last event."""
    rows = await connection.fetch(
        """
        select o.topic, o.agency_id
        from unnest($1::text[], $2::text[], $3::integer[], $4::bigint[], $5::timestamptz[], $6::text[], $7::bytea[])
            as published (topic, agency_id, epoch, sequence, time, correlation_id, digest)
        join outbox as o using (topic, agency_id, epoch)
        where
            published.sequence between o.first_sequence and o.first_sequence + o.events - 1
            and (o.time, o.correlation_id, sha256(o.payloads[published.sequence - o.first_sequence + 1]))
                is distinct from (published.time, published.correlation_id, published.digest)
        """,
        [topic for topic, _ in ends],
        [agency_id for _, agency_id in ends],
        [end.event.epoch for end in ends.values()],
        [end.event.sequence for end in ends.values()],
        [end.event.time for end in ends.values()],
        [end.event.correlation_id for end in ends.values()],
        [end.digest for end in ends.values()],
    )
    return frozenset((row["topic"], row["agency_id"]) for row in rows)


def not_on_topic(
    before: Mapping[str, Streams], ends: Mapping[Stream, End], after: Mapping[str, Streams]
) -> Iterator[Missing]:
    """The differences between topics and their producers, and readers that are ahead of a topic.

    `ends` must be read between `before` and `after`: events assigned or applied in the meantime can be ahead of one of
    them, but never of both.
    """
    for service, streams in before.items():
        for stream, produced in streams.produced.items():
            end = _end(ends, stream)
            if (first := streams.waiting.get(stream)) is not None:
                if produced > end or after[service].waiting.get(stream) == first:
                    look = "follow the runbook outbox-stuck.md: muster status"
                    yield Missing(*stream, service, NOT_PUBLISHED, _before(first), produced, look)
            # Sequences continue across a raised epoch: without a new event in it, the topic's end is as high. Nothing
            # says with which number the epoch begins, so Kafka's loss of all its events is noticed only above that end.
            elif produced > end and produced[1] > end[1]:
                yield from _lacking(stream, service, end, produced)
        for stream, applied in streams.applied.items():
            if applied > (end := _end(ends, stream)):
                yield from _lacking(stream, service, end, applied)
    for stream, last in ends.items():
        if (owner := after.get(topics()[stream[0]].owner)) is not None:  # otherwise its tables were not read
            yield from _lost_commits(stream, last, owner)


def _lacking(stream: Stream, service: str, end: Position, known: Position) -> Iterator[Missing]:
    """Events that a service assigned or applied and the topic lacks. On a compacted topic, this is no loss."""
    if not topics()[stream[0]].compacted:
        remedy = "Kafka has lost data: restore the topic from a replica or mirror before any reader continues"
        yield Missing(*stream, service, TOPIC_LACKS, end, known, remedy)


def _lost_commits(stream: Stream, end: End, after: Streams) -> Iterator[Missing]:
    """A topic is never ahead of its producer, unless the producer's database went back."""
    topic, agency_id = stream
    produced = after.produced.get(stream, Position(after.epoch, 0))
    # As in the relay, another program's record counts only if it has our ID and no operator has passed it.
    ours = end.event.id == event_id(topic, agency_id, *end.position)
    passed = any(records.covers(topic, end.partition, end.offset) for records in after.passed)
    if stream in after.reassigned:
        produced = _before(after.waiting[stream])
    if end.position > produced and ours and not passed:
        owner = topics()[topic].owner
        remedy = f"raise the epoch of {owner}: follow the runbook failover.md, or restore.md after a restore"
        yield Missing(*stream, owner, LOST_COMMITS, produced, end.position, remedy)


def not_applied(ends: Mapping[Stream, End], after: Mapping[str, Streams]) -> Iterator[Missing]:
    """What the readers have not applied from the topics."""
    for service, streams in after.items():
        read = {stream for stream in ends if service in topics()[stream[0]].readers}
        for stream in read | streams.parked.keys():
            topic, agency_id = stream
            applied, last = streams.applied.get(stream, NOTHING), _end(ends, stream)
            if stream in streams.parked:
                show = f"muster parked show {topic} {agency_id} --service {service}"
                yield Missing(*stream, service, PARKED, applied, last, show, streams.parked[stream])
            elif applied < last:
                end = ends[stream]
                if streams.next_offsets.get((topic, end.partition), 0) > end.offset:
                    again = f"let {service} read them again: follow the runbook failover.md"
                    yield Missing(*stream, service, NOT_APPLIED, applied, last, again)
                else:
                    wait = f"follow the runbook consumer-behind.md: muster streams --topic {topic} --agency {agency_id}"
                    yield Missing(*stream, service, BEHIND, applied, last, wait)


def _before(position: Position) -> Position:
    return position._replace(sequence=position.sequence - 1)


def _end(ends: Mapping[Stream, End], stream: Stream) -> Position:
    end = ends.get(stream)
    return NOTHING if end is None else end.position

"""A database that has lost commits: restored from a backup, or a replica that lagged behind when it took over.

It gives positions out a second time, and the readers would take what it says for known. The topics tell.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from muster_contracts import MalformedRecord, read_headers
from muster_runtime.db import Database
from muster_runtime.errors import RetryableError
from muster_runtime.positions import Position, StreamKey

# Of each partition, how many records at its end are looked at. Commits are lost from the end, but the relay
# publishes in the order of ids, which concurrent commits do not quite keep.
TAIL_RECORDS = 100

# How long a partition's end may take to arrive.
PATIENCE_SECONDS = 10.0

# What tells two events at one position apart: the time and the correlation id of the run that an event came in.
Identity = tuple[datetime, str]
Published = dict[StreamKey, dict[Position, Identity]]

# Topic, agency, position and identity.
Record = tuple[str, str, Position, Identity]

# How many records are compared with the outbox at once.
COMPARED_RECORDS = 10_000

_log = structlog.get_logger(__name__)


class DatabaseRestored(RetryableError):
    """Nothing may be published until an operator has raised the epoch."""


async def refuse_restored(
    database: Database, bootstrap: str, topic_prefix: str, topics: Sequence[str]
) -> Collection[TopicPartition]:
    """Compare the ends of the topics with what the database has given out, and with what waits in its outbox.

    Answers the partitions that have no leader: what is at their ends is not known, and nothing may be sent to them.
    Raises DatabaseRestored; KafkaError and TimeoutError where the ends cannot be read.
    """
    published, leaderless = await _ends(bootstrap, topic_prefix, topics)
    last = {stream: max(positions) for stream, positions in published.items()}
    # Only now: whatever is on a topic was given out by a commit before it.
    for stream, given_out in (await _given_out(database, last)).items():
        if last[stream] > given_out:
            raise _restored(stream, last[stream])
    # What has been given out a second time meanwhile is still in the outbox: it was refused here.
    for run in await _waiting_up_to(database, last):
        for position, identity in _events(run):
            if published[run["topic"], run["agency_id"]].get(position, identity) != identity:
                raise _restored((run["topic"], run["agency_id"]), position)
    return leaderless


async def published_runs(database: Database, bootstrap: str, topic_prefix: str) -> list[int]:
    """The ids of the runs in the outbox of which something is on the topics already, which are read as a whole.

    The outbox may hold more events than there is memory for.
    """
    waiting = await _spans(database)
    found: set[int] = set()
    if not waiting:
        return []
    async with _reading(bootstrap, topic_prefix, {topic for topic, _ in waiting}) as kafka:
        ends = await kafka.end_offsets(kafka.assignment())
        await kafka.seek_to_beginning(*ends)
        batch: list[Record] = []
        async for record in _records(kafka, topic_prefix, ends):
            topic, agency_id, position, _ = record
            span = waiting.get((topic, agency_id))
            if span and span[0] <= position <= span[1]:
                batch.append(record)
            if len(batch) == COMPARED_RECORDS:
                found |= await _runs_of(database, batch)
                batch.clear()
        found |= await _runs_of(database, batch)
    return sorted(found)


async def _ends(
    bootstrap: str, topic_prefix: str, topics: Sequence[str]
) -> tuple[Published, Collection[TopicPartition]]:
    """The last events of each partition, and the partitions without a leader."""
    published: Published = {}
    async with _reading(bootstrap, topic_prefix, topics) as kafka:
        cluster = kafka._client.cluster
        leaderless = [p for p in kafka.assignment() if cluster.leader_for_partition(p) in (None, -1)]
        led = [p for p in kafka.assignment() if p not in leaderless]
        ends = await kafka.end_offsets(led) if led else {}
        beginnings = await kafka.beginning_offsets(led) if led else {}
        for partition, end in ends.items():
            kafka.seek(partition, max(beginnings[partition], end - TAIL_RECORDS))
        for partition, end in ends.items():
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    async for topic, agency_id, position, identity in _records(kafka, topic_prefix, {partition: end}):
                        published.setdefault((topic, agency_id), {})[position] = identity
            except (KafkaError, TimeoutError):
                raise
            except Exception as error:  # bytes that the client cannot read are no event of ours
                _log.warning("topic_end_unread", topic=partition.topic, partition=partition.partition, exc_info=error)
    return published, leaderless


@asynccontextmanager
async def _reading(bootstrap: str, topic_prefix: str, topics: Iterable[str]) -> AsyncIterator[AIOKafkaConsumer]:
    """A client that reads topics, of no group."""
    names = [topic_prefix + topic for topic in topics]
    kafka = AIOKafkaConsumer(*names, bootstrap_servers=bootstrap, enable_auto_commit=False, fetch_max_wait_ms=100)
    try:
        await kafka.start()
        yield kafka
    finally:
        await kafka.stop()


async def _records(
    kafka: AIOKafkaConsumer, topic_prefix: str, ends: Mapping[TopicPartition, int]
) -> AsyncIterator[Record]:
    """Every event up to the ends: its topic, agency, position and identity."""
    left = await _unread(kafka, ends)
    while left:
        for partition, records in (await kafka.getmany(*left, timeout_ms=1000)).items():
            for record in records:
                try:
                    envelope = read_headers(record.headers)
                except MalformedRecord:
                    continue  # no event of ours
                yield (
                    partition.topic.removeprefix(topic_prefix),
                    envelope.agency_id,
                    (envelope.epoch, envelope.sequence),
                    (envelope.time, envelope.correlation_id),
                )
        left = await _unread(kafka, ends)


async def _unread(kafka: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> list[TopicPartition]:
    return [partition for partition, end in ends.items() if await kafka.position(partition) < end]


async def _given_out(database: Database, streams: Collection[StreamKey]) -> dict[StreamKey, Position]:
    """The last position of each stream. One that is not known, its beginning being lost too, begins in the epoch."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            """
            select topic, agency_id, coalesce(s.epoch, e.number) as epoch, coalesce(s.last_sequence, 0) as last_sequence
            from unnest($1::text[], $2::text[]) as published (topic, agency_id)
            cross join epoch as e
            left join stream as s using (topic, agency_id)
            """,
            [topic for topic, _ in streams],
            [agency_id for _, agency_id in streams],
        )
    return {(row["topic"], row["agency_id"]): (row["epoch"], row["last_sequence"]) for row in rows}


async def _waiting_up_to(database: Database, last: Mapping[StreamKey, Position]) -> list[Any]:
    """The runs of the outbox that begin no later than the last position of their stream on the topic."""
    async with database.connection() as connection:
        rows: list[Any] = await connection.fetch(
            """
            select id, topic, agency_id, epoch, first_sequence, events, time, correlation_id
            from outbox
            join unnest($1::text[], $2::text[], $3::integer[], $4::bigint[])
                as published (topic, agency_id, last_epoch, last_sequence) using (topic, agency_id)
            where (epoch, first_sequence) <= (last_epoch, last_sequence)
            """,
            [topic for topic, _ in last],
            [agency_id for _, agency_id in last],
            [epoch for epoch, _ in last.values()],
            [sequence for _, sequence in last.values()],
        )
    return rows


async def _spans(database: Database) -> dict[StreamKey, tuple[Position, Position]]:
    """From which position to which the outbox has events of each stream."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            """
            select
                topic,
                agency_id,
                min(array[epoch, first_sequence]) as first,
                max(array[epoch, first_sequence + events - 1]) as last
            from outbox
            group by topic, agency_id
            """
        )
    return {(row["topic"], row["agency_id"]): (tuple(row["first"]), tuple(row["last"])) for row in rows}


async def _runs_of(database: Database, records: Sequence[Record]) -> set[int]:
    """The ids of the runs in the outbox that records are of."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            """
            select distinct id
            from outbox
            join unnest($1::text[], $2::text[], $3::integer[], $4::bigint[], $5::timestamptz[], $6::text[])
                as record (topic, agency_id, epoch, sequence, time, correlation_id)
                using (topic, agency_id, epoch, time, correlation_id)
            where sequence >= first_sequence and sequence < first_sequence + events
            """,
            [topic for topic, _, _, _ in records],
            [agency_id for _, agency_id, _, _ in records],
            [epoch for _, _, (epoch, _), _ in records],
            [sequence for _, _, (_, sequence), _ in records],
            [time for _, _, _, (time, _) in records],
            [correlation_id for _, _, _, (_, correlation_id) in records],
        )
    return {row["id"] for row in rows}


def _events(run: Mapping[str, Any]) -> list[tuple[Position, Identity]]:
    first = run["first_sequence"]
    return [((run["epoch"], sequence), _identity(run)) for sequence in range(first, first + run["events"])]


def _identity(run: Mapping[str, Any]) -> Identity:
    return run["time"], run["correlation_id"]


def _restored(stream: StreamKey, position: Position) -> DatabaseRestored:
    topic, agency_id = stream
    return DatabaseRestored(
        f"{topic} of {agency_id} has an event at epoch {position[0]}, sequence {position[1]}, which this database has "
        "not given out: it was restored; raise its epoch (muster streams epoch raise) before it publishes"
    )

"""Detects a database that has lost commits: restored from a backup, or a lagging replica that took over.

Such a database assigns positions a second time, and readers would skip its new events as already known. The topics
reveal it. If one stream is ahead on its topic, nothing is published, because only the last records of each partition
show what was lost. Publishing other streams would bury those records, and streams whose records are further back would
continue as if nothing were wrong. If another program wrote the record, an operator lets the service past it
(`passing`).
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import structlog
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from muster_contracts import MalformedRecord, Position, event_id, read_headers
from muster_runtime.database.transactions import Database
from muster_runtime.errors import Conflict, RetryableError
from muster_runtime.messaging import passing
from muster_runtime.messaging.client_internals import leaderless
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.passing import OffsetRange
from muster_runtime.messaging.positions import StreamKey
from muster_runtime.messaging.topic_log import TopicLog

# How many records at the end of each partition are checked. Commits are lost from the end, but the relay publishes in
# ID order, and concurrent commits do not follow that order exactly.
TAIL_RECORDS = 100

# How long reading a partition's end may take.
PATIENCE_SECONDS = 10.0

# What distinguishes two events at one position: the time and correlation ID of their runs.
Identity = tuple[datetime, str]


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


Published = dict[StreamKey, dict[Position, PublishedEvent]]

# How many records to compare with the outbox at once.
COMPARED_RECORDS = 10_000

_log = structlog.get_logger(__name__)


class DatabaseRestored(RetryableError):
    """Nothing may be published until an operator has raised the epoch."""


async def refuse_restored(
    database: Database, kafka: KafkaConnection, topic_prefix: str, topics: Sequence[str]
) -> Collection[TopicPartition]:
    """Compare the ends of the topics with the positions that the database has assigned, and with its outbox.

    Returns the partitions without a leader: their ends are unknown, and nothing may be sent to them. Raises
    DatabaseRestored, or KafkaError or TimeoutError if the ends cannot be read.
    """
    async with database.connection() as connection:
        passed = await passing.passed(connection, topics)
    published, unled = await _ends(kafka, topic_prefix, topics, passed)
    last = {stream: max(positions) for stream, positions in published.items()}
    # Read after the topics: everything on a topic was assigned by an earlier commit.
    for stream, assigned in (await _assigned(database, last)).items():
        if last[stream] > assigned:
            raise _restored(published[stream][last[stream]])
    # Positions that were assigned a second time meanwhile are still in the outbox, because this check refused them.
    for run in await _waiting_up_to(database, last):
        for position, identity in _events(run):
            there = published[run["topic"], run["agency_id"]].get(position)
            if there is not None and there.identity != identity:
                raise _restored(there)
    return unled


async def published_runs(database: Database, kafka: KafkaConnection, topic_prefix: str) -> list[int]:
    """The IDs of the outbox's runs with events that are already on the topics. Reads the topics in full.

    The outbox may contain more events than fit in memory. Raises Conflict while a partition has no leader.
    """
    waiting = await _spans(database)
    found: set[int] = set()
    if not waiting:
        return []
    async with TopicLog.open(kafka, topic_prefix, {topic for topic, _ in waiting}) as log:
        if unled := leaderless(log.consumer):
            names = ", ".join(sorted(f"{each.topic}[{each.partition}]" for each in unled))
            raise Conflict(f"no leader serves {names}, so what is published cannot be read; try again later")
        compared: list[PublishedEvent] = []
        async for records in log.batches():
            for record in _events_of(records, topic_prefix):
                span = waiting.get(record.stream)
                if span and span[0] <= record.position <= span[1]:
                    compared.append(record)
            if len(compared) >= COMPARED_RECORDS:
                found |= await _runs_of(database, compared)
                compared.clear()
        found |= await _runs_of(database, compared)
    return sorted(found)


async def _ends(
    kafka: KafkaConnection, topic_prefix: str, topics: Sequence[str], passed: Collection[OffsetRange]
) -> tuple[Published, Collection[TopicPartition]]:
    """The last events of each partition, except passed records, and the partitions without a leader."""
    published: Published = {}
    async with TopicLog.open(kafka, topic_prefix, topics) as log:
        unled = leaderless(log.consumer)
        led = [partition for partition in log.partitions if partition not in unled]
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await log.seek_to_tail(led, TAIL_RECORDS)
        except TimeoutError:  # a topic that has just been deleted, for example
            raise TimeoutError(f"the topics' ends have not arrived within {PATIENCE_SECONDS:g} s") from None
        for partition in led:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    async for records in log.batches(partition):
                        for record in _events_of(records, topic_prefix):
                            if not any(each.covers(record.topic, record.partition, record.offset) for each in passed):
                                published.setdefault(record.stream, {})[record.position] = record
            except TimeoutError:
                end = f"{partition.topic}[{partition.partition}]"
                raise TimeoutError(f"the end of {end} has not arrived within {PATIENCE_SECONDS:g} s") from None
            except KafkaError:
                raise
            except Exception as error:  # bytes that the client cannot read are not our event
                _log.warning("topic_end_unread", topic=partition.topic, partition=partition.partition, exc_info=error)
    return published, unled


def _events_of(records: Iterable[ConsumerRecord[bytes, bytes]], topic_prefix: str) -> Iterator[PublishedEvent]:
    """The records that are events and whose ID is the one that the relay gives to their position."""
    for record in records:
        try:
            envelope = read_headers(record.headers)
        except MalformedRecord:
            continue  # not one of our events
        topic, position = record.topic.removeprefix(topic_prefix), Position(envelope.epoch, envelope.sequence)
        if envelope.id == event_id(topic, envelope.agency_id, *position):
            identity = envelope.time, envelope.correlation_id
            yield PublishedEvent(topic, envelope.agency_id, position, identity, record.partition, record.offset)


async def _assigned(database: Database, streams: Collection[StreamKey]) -> dict[StreamKey, Position]:
    """The last assigned position of each stream.

    An unknown stream, whose beginning is also lost, begins in the epoch.
    """
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
    return {(row["topic"], row["agency_id"]): Position(row["epoch"], row["last_sequence"]) for row in rows}


async def _waiting_up_to(database: Database, last: Mapping[StreamKey, Position]) -> list[Any]:
    """The outbox's runs that begin no later than their stream's last position on the topic."""
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
    """The first and last position of each stream in the outbox."""
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
    return {(row["topic"], row["agency_id"]): (Position(*row["first"]), Position(*row["last"])) for row in rows}


async def _runs_of(database: Database, records: Sequence[PublishedEvent]) -> set[int]:
    """The IDs of the outbox's runs that these records belong to."""
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
            [record.topic for record in records],
            [record.agency_id for record in records],
            [record.position.epoch for record in records],
            [record.position.sequence for record in records],
            [record.identity[0] for record in records],
            [record.identity[1] for record in records],
        )
    return {row["id"] for row in rows}


def _events(run: Mapping[str, Any]) -> list[tuple[Position, Identity]]:
    first = run["first_sequence"]
    return [(Position(run["epoch"], sequence), _identity(run)) for sequence in range(first, first + run["events"])]


def _identity(run: Mapping[str, Any]) -> Identity:
    return run["time"], run["correlation_id"]


def _restored(record: PublishedEvent) -> DatabaseRestored:
    epoch, sequence = record.position
    return DatabaseRestored(
        f"{record.topic} of {record.agency_id} has an event at epoch {epoch}, sequence {sequence} "
        f"({record.topic}[{record.partition}]@{record.offset}), which this database has not assigned: "
        "it was restored; raise its epoch (muster streams epoch raise) before it publishes, "
        "or pass the record if another program wrote it"
    )

"""Detects a database that has lost commits: restored from a backup, or a lagging replica that took over.

Such a database assigns positions a second time, and readers would skip its new events as already known. The topics
reveal it. If one stream is ahead on its topic, nothing is published, because only the last records of each partition
show what was lost. Publishing other streams would bury those records, and streams whose records are further back would
continue as if nothing were wrong. If another program wrote the record, an operator lets the service past it
(`passing`).

What was published after the first lost commit is lost, too, or waits in the outbox again, because the relay deleted it
later. So records that wait in the outbox do not count as last ones: a long run could bury all others.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import structlog
from aiokafka import TopicPartition

from muster_contracts import Position
from muster_runtime.database.transactions import Database
from muster_runtime.errors import Conflict, RetryableError
from muster_runtime.messaging import passing
from muster_runtime.messaging.client_internals import leaderless
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.offsets import Partition
from muster_runtime.messaging.positions import StreamKey
from muster_runtime.messaging.published_events import PublishedEvent, WaitingEvent, events_of, waiting_at
from muster_runtime.messaging.topic_log import Record, TopicLog

# How many records at the end of each partition are checked, beyond those that wait in the outbox. Commits are lost from
# the end, but the relay publishes in ID order, and concurrent commits do not follow that order exactly.
TAIL_RECORDS = 100

# How many records to compare with the outbox at once, and how many offsets of one partition to read for that.
COMPARED_RECORDS = 10_000
MOST_OFFSETS = 2_000

# How many offsets without records count like a record.
OFFSETS_PER_RECORD = 50

# How long reading a partition's end may take.
PATIENCE_SECONDS = 10.0


class _Tail(NamedTuple):
    """Offsets of a partition, from `first` up to but not including `end`."""

    first: int
    end: int
    beginning: int  # of the partition
    settled: int = 0  # how many records at later offsets do not wait in the outbox

    @property
    def offsets(self) -> int:
        return self.end - self.first

    def before(self, records: int, waiting: int) -> "_Tail | None":
        """The earlier offsets to compare next; None if enough are compared.

        These offsets have so many `records`, of which `waiting` wait in the outbox. Where compaction has left few
        records, many offsets are enough.
        """
        settled = self.settled + max(records - waiting, (self.offsets - waiting) // OFFSETS_PER_RECORD)
        if settled >= TAIL_RECORDS or self.first == self.beginning:
            return None
        offsets = min(2 * self.offsets, MOST_OFFSETS)
        return _Tail(max(self.beginning, self.first - offsets), self.first, self.beginning, settled)


_log = structlog.get_logger(__name__)


class DatabaseRestored(RetryableError):
    """Nothing may be published until an operator has raised the epoch."""


class _Runs:
    """The outbox's runs that have events on their topic, and in which epochs."""

    def __init__(self) -> None:
        self._published: dict[int, int] = {}  # the highest epoch, by ID
        self._others: set[tuple[int, int]] = set()  # ID and epoch, where a run's topic has another event

    def note(self, events: Iterable[WaitingEvent]) -> None:
        for event in events:
            epoch = event.published.position.epoch
            if event.is_published:
                self._published[event.run_id] = max(epoch, self._published.get(event.run_id, epoch))
            else:
                self._others.add((event.run_id, epoch))

    @property
    def published(self) -> Mapping[int, int]:
        """Each published run's ID, and its last epoch on the topic."""
        return {run_id: epoch for run_id, epoch in self._published.items() if (run_id, epoch) not in self._others}


async def refuse_restored(
    database: Database, kafka: KafkaConnection, topic_prefix: str, topics: Sequence[str]
) -> Collection[TopicPartition]:
    """Compare the ends of the topics with the positions that the database has assigned, and with its outbox.

    Returns the partitions without a leader: their ends are unknown, and nothing may be sent to them. Raises
    DatabaseRestored, or KafkaError or TimeoutError if the ends cannot be read. A record that the client cannot decode
    does not hide the others.
    """
    async with database.connection() as connection:
        passed = await passing.passed(connection, topics)
    async with TopicLog.open(kafka, topic_prefix, topics, passed) as log:
        unled = leaderless(log.consumer)
        tails = await _tails(log, [partition for partition in log.partitions if partition not in unled])
        while tails:
            chosen = _first_of(tails)
            events, records = await _read(log, chosen)
            waiting = await _refuse_lost(database, events)
            for partition, tail in chosen.items():
                del tails[partition]
                key = log.place(partition)
                if earlier := tail.before(records[key], waiting[key]):
                    tails[partition] = earlier
        _warn_unreadable(log)
    return unled


async def published_runs(database: Database, kafka: KafkaConnection, topic_prefix: str) -> Mapping[int, int]:
    """The IDs of the outbox's runs with events that are already on the topics, and the last epoch of those.

    That epoch is higher than the run's if the database has lost a raised epoch. Reads the topics in full.

    If the topics have another event at one of a run's positions in that epoch, none of the run counts as published: it
    must get new positions, and can only get them as a whole. The outbox may contain more events than fit in memory.
    Skips records that the client cannot decode. Raises Conflict while a partition has no leader.
    """
    waiting = await _spans(database)
    if not waiting:
        return {}
    runs = _Runs()
    async with database.connection() as connection:
        passed = await passing.passed(connection, sorted({topic for topic, _ in waiting}))
    async with TopicLog.open(kafka, topic_prefix, {topic for topic, _ in waiting}, passed) as log:
        if unled := leaderless(log.consumer):
            names = ", ".join(sorted(f"{each.topic}[{each.partition}]" for each in unled))
            raise Conflict(f"no leader serves {names}, so what is published cannot be read; try again later")
        compared: list[PublishedEvent] = []
        async for records in log.batches():
            for record in _own(log, records):
                span = waiting.get(record.stream)
                if span and span[0] <= record.position and record.position.sequence <= span[1].sequence:
                    compared.append(record)
            if len(compared) >= COMPARED_RECORDS:
                runs.note(await waiting_at(database, compared))
                compared.clear()
        runs.note(await waiting_at(database, compared))
        _warn_unreadable(log)
    return runs.published


async def _tails(log: TopicLog, partitions: Collection[TopicPartition]) -> dict[TopicPartition, _Tail]:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            bounds = await log.bounds(partitions)
    except TimeoutError:  # a topic that has just been deleted, for example
        raise TimeoutError(f"the topics' ends have not arrived within {PATIENCE_SECONDS:g} s") from None
    return {each: _Tail(max(first, end - TAIL_RECORDS), end, first) for each, (first, end) in bounds.items()}


def _first_of(tails: Mapping[TopicPartition, _Tail]) -> dict[TopicPartition, _Tail]:
    """As many tails as are compared at once."""
    chosen: dict[TopicPartition, _Tail] = {}
    offsets = 0
    for partition, tail in tails.items():
        offsets += tail.offsets
        if chosen and offsets > COMPARED_RECORDS:
            break
        chosen[partition] = tail
    return chosen


async def _read(
    log: TopicLog, tails: Mapping[TopicPartition, _Tail]
) -> tuple[list[PublishedEvent], Counter[Partition]]:
    """The events of these offsets, except passed records, and the number of all records by topic and partition."""
    found: list[PublishedEvent] = []
    number: Counter[Partition] = Counter()
    for partition, tail in tails.items():
        place = log.place(partition)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                async for records in log.between(partition, tail.first, tail.end):
                    number[place] += len(records)
                    found += _own(log, records)
        except TimeoutError:
            raise TimeoutError(_late(log, place)) from None
    return found, number


def _warn_unreadable(log: TopicLog) -> None:
    if log.unreadable:
        _log.warning("records_unreadable", records=", ".join(map(str, log.unreadable)))


def _late(log: TopicLog, place: Partition) -> str:
    """Why a partition's end has not been read in time."""
    late = f"the end of {place[0]}[{place[1]}] has not arrived within {PATIENCE_SECONDS:g} s"
    unreadable = [str(each) for each in log.unreadable if each[:2] == place]
    if not unreadable:
        return late
    return f"{late}, because {unreadable[-1]} cannot be read: let the service pass these records (muster streams pass)"


def _own(log: TopicLog, records: Iterable[Record]) -> Iterator[PublishedEvent]:
    """The records that are the service's events, except those that an operator has passed."""
    for event in events_of(records, log.topic_prefix):
        if not any(each.covers(event.topic, event.partition, event.offset) for each in log.passed):
            yield event


async def _refuse_lost(database: Database, events: Sequence[PublishedEvent]) -> Counter[Partition]:
    """Compare events with the database; return how many of each topic and partition wait in the outbox.

    Raises DatabaseRestored if the database has not assigned one's position, or has assigned it to another event.
    """
    last: dict[StreamKey, PublishedEvent] = {}
    for event in events:
        if event.stream not in last or event.position > last[event.stream].position:
            last[event.stream] = event
    # Read after the topics: everything on a topic was assigned by an earlier commit.
    for stream, assigned in (await _assigned(database, last)).items():
        if last[stream].position > assigned:
            raise _restored(last[stream])
    # Positions that were assigned a second time meanwhile are still in the outbox, because this check refused them.
    waiting: Counter[Partition] = Counter()
    for each in await waiting_at(database, events):
        if each.epoch != each.published.position.epoch:
            continue
        if not each.is_published:
            raise _restored(each.published)
        waiting[each.published.topic, each.published.partition] += 1
    return waiting


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


def _restored(record: PublishedEvent) -> DatabaseRestored:
    epoch, sequence = record.position
    return DatabaseRestored(
        f"{record.topic} of {record.agency_id} has an event at epoch {epoch}, sequence {sequence} "
        f"({record.topic}[{record.partition}]@{record.offset}), which this database has not assigned: "
        "it was restored; raise its epoch (muster streams epoch raise) before it publishes, "
        "or pass the record if another program wrote it"
    )

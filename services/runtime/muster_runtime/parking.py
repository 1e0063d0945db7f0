"""Parking: a stream whose event could not be applied stands still, in order, until an operator acts.

Only that agency's stream of that topic is parked; every other flows on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from muster_runtime.db import Connection, UnitOfWork
from muster_runtime.errors import RetryableError

# The window in which the breaker counts the streams that parked.
BREAKER_WINDOW = timedelta(minutes=10)


class Record(NamedTuple):
    """A raw record as it came from Kafka; `topic` is the contract's name, without any prefix."""

    topic: str
    agency_id: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class ParkedStream:
    """A stream that stands still: why, since when, and how many records wait in it."""

    topic: str
    agency_id: str
    parked_at: datetime
    reason: str
    records: int


@dataclass(frozen=True, slots=True)
class ParkingLimits:
    """How many records one stream may hold, and how many streams may park within BREAKER_WINDOW."""

    records: int = 100_000
    streams: int = 50


DEFAULT_LIMITS = ParkingLimits()


class StreamStands(RetryableError):
    """Nothing of one stream can be taken for now: its partition must wait, and the others need not."""

    def __init__(self, topic: str, agency_id: str, why: str) -> None:
        super().__init__(why)
        self.topic = topic
        self.agency_id = agency_id


class StreamFull(StreamStands):
    """A parked stream holds as many records as it may: it stands until an operator has acted."""


class AgencyStands(StreamStands):
    """Another transaction holds the agency's lock for longer than a consumer waits, or its rows cannot be read."""


class BreakerOpen(RetryableError):
    """So many streams have parked in a short time that the fault is ours, not an event's: nothing more parks."""

    def __init__(self, limit: int) -> None:
        minutes = int(BREAKER_WINDOW.total_seconds() / 60)
        super().__init__(
            f"the breaker is open: {limit} streams have parked within {minutes} minutes; "
            "mend the cause, then replay or discard them"
        )


async def park(uow: UnitOfWork, group: str, records: Sequence[Record], reason: str, limits: ParkingLimits) -> None:
    """Append records of one stream, the first of which could not be applied, to its parking place.

    Raises BreakerOpen, and StreamFull.
    """
    first = records[0]
    recent = await uow.connection.fetchval(
        "select count(*) from parked_stream where consumer_group = $1 and parked_at > $2",
        group,
        uow.now - BREAKER_WINDOW,
    )
    if recent >= limits.streams:
        raise BreakerOpen(limits.streams)
    await uow.connection.execute(
        """
        insert into parked_stream (consumer_group, topic, agency_id, parked_at, reason)
        values ($1, $2, $3, $4, $5)
        on conflict do nothing
        """,
        group,
        first.topic,
        first.agency_id,
        uow.now,
        reason[:2000],
    )
    await append(uow, group, records, limits)


async def append(uow: UnitOfWork, group: str, records: Sequence[Record], limits: ParkingLimits) -> None:
    """Append records of one parked stream behind those that wait already; one read twice is kept once.

    Raises StreamFull when it would hold too many.
    """
    if not records:
        return
    topic, agency_id = records[0].topic, records[0].agency_id
    await uow.connection.executemany(
        """
        with added as (
            insert into parked_event (
                consumer_group, topic, agency_id, kafka_partition, kafka_offset, key,
                header_names, header_values, value, parked_at
            )
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
            on conflict do nothing
            returning 1
        )
        update parked_stream
        set records = records + (select count(*) from added)
        where consumer_group = $1 and topic = $2 and agency_id = $3
        """,
        [
            (
                group,
                record.topic,
                record.agency_id,
                record.partition,
                record.offset,
                record.key,
                [name.replace("\0", "\\0") for name, _ in record.headers],  # which text in Postgres cannot hold
                [value for _, value in record.headers],
                record.value,
                uow.now,
            )
            for record in records
        ],
    )
    if await waiting(uow.connection, group, topic, agency_id) > limits.records:
        full = f"the parked stream of {agency_id} on {topic} is full: {limits.records} records wait"
        raise StreamFull(topic, agency_id, full)


async def waiting(connection: Connection, group: str, topic: str, agency_id: str) -> int:
    """How many records wait in a stream; 0 where it is not parked."""
    count: int | None = await connection.fetchval(
        "select records from parked_stream where consumer_group = $1 and topic = $2 and agency_id = $3",
        group,
        topic,
        agency_id,
    )
    return count or 0


async def parked_streams(connection: Connection, group: str) -> list[ParkedStream]:
    """Every parked stream of a consumer group, the oldest first."""
    rows = await connection.fetch(
        """
        select topic, agency_id, parked_at, reason, records
        from parked_stream
        where consumer_group = $1
        order by parked_at, topic, agency_id
        """,
        group,
    )
    return [ParkedStream(**row) for row in rows]


async def parked_records(connection: Connection, group: str, topic: str, agency_id: str, limit: int) -> list[Record]:
    """The first records that wait in a parked stream, in order."""
    rows = await connection.fetch(
        """
        select topic, agency_id, kafka_partition, kafka_offset, key, header_names, header_values, value
        from parked_event
        where consumer_group = $1 and topic = $2 and agency_id = $3
        order by kafka_partition, kafka_offset
        limit $4
        """,
        group,
        topic,
        agency_id,
        limit,
    )
    return [_record(row) for row in rows]


async def remove(uow: UnitOfWork, group: str, records: Sequence[Record]) -> None:
    """Remove records that were applied, or given up, and unpark the stream with its last one."""
    first = records[0]
    await uow.connection.execute(
        """
        with gone as (
            delete from parked_event
            where
                consumer_group = $1 and topic = $2 and agency_id = $3
                and (kafka_partition, kafka_offset) in (select * from unnest($4::integer[], $5::bigint[]))
            returning 1
        )
        update parked_stream
        set records = records - (select count(*) from gone)
        where consumer_group = $1 and topic = $2 and agency_id = $3
        """,
        group,
        first.topic,
        first.agency_id,
        [record.partition for record in records],
        [record.offset for record in records],
    )
    await uow.connection.execute(
        """
        delete from parked_stream as s
        where
            consumer_group = $1 and topic = $2 and agency_id = $3
            and not exists (
                select
                from parked_event as e
                where
                    e.consumer_group = s.consumer_group and e.topic = s.topic
                    and e.agency_id = s.agency_id
            )
        """,
        group,
        first.topic,
        first.agency_id,
    )


def _record(row: Any) -> Record:
    return Record(
        topic=row["topic"],
        agency_id=row["agency_id"],
        partition=row["kafka_partition"],
        offset=row["kafka_offset"],
        key=row["key"],
        value=row["value"],
        headers=list(zip(row["header_names"], row["header_values"], strict=True)),
    )

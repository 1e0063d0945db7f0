"""Reads what is parked: the parked streams of a consumer group, and the records that wait in each."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from muster_contracts import Position
from muster_runtime.database.transactions import Connection
from muster_runtime.messaging.record_reader import Record


@dataclass(frozen=True, slots=True)
class ParkedStream:
    """A parked stream: why, since when, and how many records wait in it."""

    topic: str
    agency_id: str
    parked_at: datetime
    reason: str
    records: int


async def count(connection: Connection, group: str, topic: str, agency_id: str) -> int:
    """How many records wait in a stream; 0 if it is not parked."""
    records: int | None = await connection.fetchval(
        "select records from parked_stream where consumer_group = $1 and topic = $2 and agency_id = $3",
        group,
        topic,
        agency_id,
    )
    return records or 0


async def first_position(connection: Connection, group: str, topic: str, agency_id: str) -> Position | None:
    """The position of the first record that waits in a stream; None if none does."""
    row = await connection.fetchrow(
        """
        select epoch, sequence
        from parked_event
        where consumer_group = $1 and topic = $2 and agency_id = $3
        order by epoch, sequence
        limit 1
        """,
        group,
        topic,
        agency_id,
    )
    return None if row is None else Position(row["epoch"], row["sequence"])


async def streams(connection: Connection, group: str) -> list[ParkedStream]:
    """All parked streams of a consumer group, oldest first."""
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


async def find(connection: Connection, group: str, topic: str, agency_id: str) -> ParkedStream | None:
    """A parked stream of a consumer group; None if it is not parked."""
    row = await connection.fetchrow(
        """
        select topic, agency_id, parked_at, reason, records
        from parked_stream
        where consumer_group = $1 and topic = $2 and agency_id = $3
        """,
        group,
        topic,
        agency_id,
    )
    return None if row is None else ParkedStream(**row)


async def first_records(connection: Connection, group: str, topic: str, agency_id: str, limit: int) -> list[Record]:
    """The first records that wait in a parked stream, by position. They may be of several partitions."""
    rows = await connection.fetch(
        """
        select topic, agency_id, kafka_partition, kafka_offset, key, header_names, header_values, value
        from parked_event
        where consumer_group = $1 and topic = $2 and agency_id = $3
        order by epoch, sequence, kafka_partition, kafka_offset
        limit $4
        """,
        group,
        topic,
        agency_id,
        limit,
    )
    return [_record(row) for row in rows]


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

"""Parking: a stream whose event could not be applied stands still, in order, until an operator acts.

Only that agency's stream of that topic is parked; every other flows on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from muster_runtime.db import Connection, UnitOfWork


@dataclass(frozen=True, slots=True)
class Record:
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


async def park(uow: UnitOfWork, group: str, records: Sequence[Record], reason: str) -> None:
    """Append records of one stream, the first of which could not be applied, to its parking place."""
    first = records[0]
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
    await append(uow, group, records)


async def append(uow: UnitOfWork, group: str, records: Sequence[Record]) -> None:
    """Append records of parked streams behind those that wait already; one read twice is kept once."""
    await uow.connection.executemany(
        """
        insert into parked_event (
            consumer_group, topic, agency_id, kafka_partition, kafka_offset, key,
            header_names, header_values, value, parked_at
        )
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        on conflict do nothing
        """,
        [
            (
                group,
                record.topic,
                record.agency_id,
                record.partition,
                record.offset,
                record.key,
                [name for name, _ in record.headers],
                [value for _, value in record.headers],
                record.value,
                uow.now,
            )
            for record in records
        ],
    )


async def parked_streams(connection: Connection, group: str) -> list[ParkedStream]:
    """Every parked stream of a consumer group, the oldest first."""
    rows = await connection.fetch(
        """
        select
            s.topic, s.agency_id, s.parked_at, s.reason,
            (
                select count(*)
                from parked_event as e
                where
                    e.consumer_group = s.consumer_group and e.topic = s.topic
                    and e.agency_id = s.agency_id
            ) as records
        from parked_stream as s
        where s.consumer_group = $1
        order by s.parked_at, s.topic, s.agency_id
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
        delete from parked_event
        where
            consumer_group = $1 and topic = $2 and agency_id = $3
            and (kafka_partition, kafka_offset) in (select * from unnest($4::integer[], $5::bigint[]))
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

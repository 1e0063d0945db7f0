"""Where the intake of usage goes on to read, and the records that it could not count, or not yet."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from muster_runtime.database.connections import Connection

Partition = tuple[str, int]  # topic, number


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record of Kafka as it came."""

    topic: str
    kafka_partition: int
    kafka_offset: int
    key: bytes | None
    headers: Sequence[tuple[str, bytes]]
    value: bytes | None

    @property
    def columns(self) -> tuple[object, ...]:
        """Its columns."""
        names = [name.replace("\0", "\\0") for name, _ in self.headers]  # which text in Postgres cannot hold
        values = [value for _, value in self.headers]
        return self.topic, self.kafka_partition, self.kafka_offset, self.key, names, values, self.value


async def find_offsets(connection: Connection) -> dict[Partition, int]:
    """The offset from which to go on, of each partition that was read before."""
    rows = await connection.fetch("select topic, kafka_partition, next_offset from usage_offset")
    return {(row["topic"], row["kafka_partition"]): row["next_offset"] for row in rows}


async def save_offsets(connection: Connection, read: Mapping[Partition, tuple[int, int]]) -> bool:
    """Move partitions from one offset to another; False if one of them is not where it is to be moved from."""
    rows = await connection.fetch(
        """
        select topic, kafka_partition, next_offset
        from usage_offset
        where (topic, kafka_partition) in (select * from unnest($1::text[], $2::integer[]))
        order by topic, kafka_partition
        for update
        """,
        [topic for topic, _ in read],
        [number for _, number in read],
    )
    stored = {(row["topic"], row["kafka_partition"]): row["next_offset"] for row in rows}
    if any(stored.get(partition, 0) != first for partition, (first, _) in read.items()):
        return False
    await connection.execute(
        """
        insert into usage_offset (topic, kafka_partition, next_offset)
        select * from unnest($1::text[], $2::integer[], $3::bigint[])
        on conflict (topic, kafka_partition) do update set next_offset = excluded.next_offset
        """,
        [topic for topic, _ in read],
        [number for _, number in read],
        [after for _, after in read.values()],
    )
    return True


async def add_parked(connection: Connection, records: Collection[tuple[StoredRecord, str]], now: datetime) -> None:
    """Park records, each for a reason; one that is parked already stays as it is."""
    await connection.executemany(
        """
        insert into usage_parked (
            topic, kafka_partition, kafka_offset, key, header_names, header_values, value, reason, parked_at
        )
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        on conflict (topic, kafka_partition, kafka_offset) do nothing
        """,
        [(*record.columns, reason, now) for record, reason in records],
    )


async def add_deferred(connection: Connection, records: Collection[tuple[StoredRecord, str]], now: datetime) -> None:
    """Defer records, each until the lock of an agency can be had."""
    await connection.executemany(
        """
        insert into usage_deferred (
            topic, kafka_partition, kafka_offset, key, header_names, header_values, value, waits_for, deferred_at
        )
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        on conflict (topic, kafka_partition, kafka_offset) do nothing
        """,
        [(*record.columns, agency_id, now) for record, agency_id in records],
    )


async def list_waited_for(connection: Connection, partitions: Sequence[int]) -> list[str]:
    """The agencies for whose locks records of these partitions wait, the longest wait first."""
    rows = await connection.fetch(
        """
        select waits_for
        from usage_deferred
        where kafka_partition = any($1::integer[])
        group by waits_for
        order by min(id)
        """,
        partitions,
    )
    return [row["waits_for"] for row in rows]


async def find_oldest_deferred(connection: Connection) -> datetime | None:
    """Since when a record has waited; None if none waits."""
    instant: datetime | None = await connection.fetchval("select min(deferred_at) from usage_deferred")
    return instant


async def take_deferred(
    connection: Connection, agency_id: str, partitions: Sequence[int], limit: int
) -> list[StoredRecord]:
    """Delete the first records of these partitions that wait for an agency; returns them in their order."""
    rows = await connection.fetch(
        """
        with taken as (
            delete from usage_deferred
            where id in (
                select id
                from usage_deferred
                where waits_for = $1 and kafka_partition = any($2::integer[])
                order by id
                limit $3
            )
            returning id, topic, kafka_partition, kafka_offset, key, header_names, header_values, value
        )

        select topic, kafka_partition, kafka_offset, key, header_names, header_values, value from taken order by id
        """,
        agency_id,
        partitions,
        limit,
    )
    return [
        StoredRecord(
            topic=row["topic"],
            kafka_partition=row["kafka_partition"],
            kafka_offset=row["kafka_offset"],
            key=row["key"],
            headers=list(zip(row["header_names"], row["header_values"], strict=True)),
            value=row["value"],
        )
        for row in rows
    ]


async def count_parked(connection: Connection) -> int:
    """How many records are parked."""
    parked: int = await connection.fetchval("select count(*) from usage_parked")
    return parked


async def delete_parked(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Delete parked records; returns those that were there."""
    rows = await connection.fetch("delete from usage_parked where id = any($1::bigint[]) returning id", list(ids))
    return sorted(row["id"] for row in rows)


async def find_oldest_parked(connection: Connection) -> datetime | None:
    """Since when the oldest record has been parked; None if none is."""
    instant: datetime | None = await connection.fetchval("select parked_at from usage_parked order by id limit 1")
    return instant


async def delete_old_parked(connection: Connection, before: datetime, limit: int) -> int:
    """Delete at most `limit` records that were parked by then, oldest first; returns how many."""
    deleted: int = await connection.fetchval(
        """
        with deleted as (
            delete from usage_parked
            where id in (select id from usage_parked where parked_at <= $1 order by id limit $2)
            returning 1
        )

        select count(*) from deleted
        """,
        before,
        limit,
    )
    return deleted

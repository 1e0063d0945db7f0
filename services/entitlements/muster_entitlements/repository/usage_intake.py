"""Where the intake of usage goes on to read, and the records that it could not count."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from muster_runtime.database.connections import Connection

Partition = tuple[str, int]  # topic, number


@dataclass(frozen=True, slots=True)
class ParkedUsage:
    """A record that could not be counted, and why."""

    topic: str
    kafka_partition: int
    kafka_offset: int
    key: bytes | None
    headers: Sequence[tuple[str, bytes]]
    value: bytes | None
    reason: str


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


async def add_parked(connection: Connection, records: Sequence[ParkedUsage], now: datetime) -> None:
    """Park records; one that is parked already stays as it is."""
    await connection.executemany(
        """
        insert into usage_parked (
            topic, kafka_partition, kafka_offset, key, header_names, header_values, value, reason, parked_at
        )
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        on conflict (topic, kafka_partition, kafka_offset) do nothing
        """,
        [
            (
                record.topic,
                record.kafka_partition,
                record.kafka_offset,
                record.key,
                [name.replace("\0", "\\0") for name, _ in record.headers],  # which text in Postgres cannot hold
                [value for _, value in record.headers],
                record.value,
                record.reason,
                now,
            )
            for record in records
        ],
    )


async def count_parked(connection: Connection) -> int:
    """How many records are parked."""
    parked: int = await connection.fetchval("select count(*) from usage_parked")
    return parked


async def delete_parked(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Delete parked records; returns those that were there."""
    rows = await connection.fetch("delete from usage_parked where id = any($1::bigint[]) returning id", list(ids))
    return sorted(row["id"] for row in rows)

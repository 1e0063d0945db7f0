"""Where the usage intake continues to read, and the records that it has parked or deferred."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from muster_runtime.database.connections import Connection
from muster_runtime.messaging.offsets import Partition


class Place(NamedTuple):
    """Where a partition continues, and the ID of its topic; None if it was stored before topic IDs were."""

    offset: int
    topic_id: str | None


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as read from Kafka; `deferred_at` if it was deferred."""

    topic: str
    kafka_partition: int
    kafka_offset: int
    key: bytes | None
    headers: Sequence[tuple[str, bytes]]
    value: bytes | None
    deferred_at: datetime | None = None

    @property
    def columns(self) -> tuple[object, ...]:
        """The values of its columns."""
        names = [name.replace("\0", "\\0") for name, _ in self.headers]  # text in Postgres has no NUL
        values = [value for _, value in self.headers]
        return self.topic, self.kafka_partition, self.kafka_offset, self.key, names, values, self.value


async def find_places(connection: Connection, topic: str, partitions: Collection[int]) -> dict[int, Place]:
    """Where to continue in each of a topic's partitions that was read before. The rows stay locked until the commit."""
    rows = await connection.fetch(
        """
        select kafka_partition, next_offset, topic_id
        from usage_offset
        where topic = $1 and kafka_partition = any($2::integer[])
        order by kafka_partition
        for update
        """,
        topic,
        list(partitions),
    )
    return {row["kafka_partition"]: Place(row["next_offset"], row["topic_id"]) for row in rows}


async def list_offsets(connection: Connection) -> dict[Partition, int]:
    """Where each partition continues."""
    rows = await connection.fetch("select topic, kafka_partition, next_offset from usage_offset")
    return {(row["topic"], row["kafka_partition"]): row["next_offset"] for row in rows}


async def list_deferred(connection: Connection, agencies: Collection[str]) -> dict[str, dict[Partition, int]]:
    """The first offset of the deferred records of these agencies, for each of their partitions."""
    rows = await connection.fetch(
        """
        select waits_for, topic, kafka_partition, min(kafka_offset) as first_offset
        from usage_deferred
        where waits_for = any($1::text[])
        group by waits_for, topic, kafka_partition
        """,
        list(agencies),
    )
    deferred: dict[str, dict[Partition, int]] = {}
    for row in rows:
        deferred.setdefault(row["waits_for"], {})[row["topic"], row["kafka_partition"]] = row["first_offset"]
    return deferred


async def save_places(connection: Connection, topic: str, places: Mapping[int, Place]) -> None:
    """Store where each partition of a topic continues."""
    await connection.execute(
        """
        insert into usage_offset (topic, kafka_partition, next_offset, topic_id)
        select $1, * from unnest($2::integer[], $3::bigint[], $4::text[])
        on conflict (topic, kafka_partition)
        do update set next_offset = excluded.next_offset, topic_id = excluded.topic_id
        """,
        topic,
        list(places),
        [place.offset for place in places.values()],
        [place.topic_id for place in places.values()],
    )


async def move(connection: Connection, topic: str, topic_id: str, read: Mapping[int, tuple[int, int]]) -> bool:
    """Move partitions from one offset to a later one; False, and no change, if any is not at its first offset."""
    places = await find_places(connection, topic, read)
    for partition, (first, after) in read.items():
        if places.get(partition, Place(0, topic_id)) != Place(first, topic_id) or after < first:
            return False
    await save_places(connection, topic, {number: Place(after, topic_id) for number, (_, after) in read.items()})
    return True


async def set_aside(connection: Connection, topic: str, partition: int) -> None:
    """Rename the topic of a partition's stored records, because new records will have the same offsets."""
    for table in ("usage_parked", "usage_deferred"):
        await connection.execute(
            f"update {table} set topic = topic || '@' || id where topic = $1 and kafka_partition = $2",  # noqa: S608
            topic,
            partition,
        )


async def add_parked(connection: Connection, records: Collection[tuple[StoredRecord, str]], now: datetime) -> None:
    """Park records, each for a reason; a record that is already parked does not change."""
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
    """Defer records, each until its agency's use can be counted."""
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


async def list_waited_for(connection: Connection, lane: int, lanes: int) -> list[str]:
    """The agencies that records of a lane's partitions wait for, the longest wait first."""
    rows = await connection.fetch(
        """
        select waits_for
        from usage_deferred
        where kafka_partition % $2 = $1
        group by waits_for
        order by min(id)
        """,
        lane,
        lanes,
    )
    return [row["waits_for"] for row in rows]


async def find_oldest_deferred(connection: Connection) -> datetime | None:
    """Since when the oldest record has been deferred; None if none is."""
    instant: datetime | None = await connection.fetchval("select min(deferred_at) from usage_deferred")
    return instant


async def find_last_deferred(connection: Connection) -> int:
    """The highest ID of a deferred record; 0 if there is none."""
    last: int = await connection.fetchval("select coalesce(max(id), 0) from usage_deferred")
    return last


async def count_deferred(connection: Connection, most: int) -> int:
    """How many records are deferred, but no more than `most`."""
    deferred: int = await connection.fetchval(
        "select count(*) from (select from usage_deferred limit $1) as counted", most
    )
    return deferred


async def take_deferred(
    connection: Connection, until: Mapping[str, int | None], lane: int, lanes: int, limit: int
) -> list[StoredRecord]:
    """Delete the first records of a lane's partitions that wait for these agencies; returns them in order.

    `until` is the last ID to take for each agency; None takes all.
    """
    rows = await connection.fetch(
        """
        with taken as (
            delete from usage_deferred
            where id in (
                select id
                from usage_deferred
                inner join unnest($1::text[], $2::bigint[]) as agency (agency_id, last_id) on waits_for = agency_id
                where (last_id is null or id <= last_id) and kafka_partition % $4 = $3
                order by id
                limit $5
            )
            returning id, topic, kafka_partition, kafka_offset, key, header_names, header_values, value, deferred_at
        )

        select topic, kafka_partition, kafka_offset, key, header_names, header_values, value, deferred_at
        from taken
        order by id
        """,
        list(until),
        list(until.values()),
        lane,
        lanes,
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
            deferred_at=row["deferred_at"],
        )
        for row in rows
    ]


async def count_parked(connection: Connection, most: int) -> int:
    """How many records are parked, but no more than `most`."""
    parked: int = await connection.fetchval("select count(*) from (select from usage_parked limit $1) as counted", most)
    return parked


async def delete_parked(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Delete parked records; returns the IDs of those that existed."""
    rows = await connection.fetch("delete from usage_parked where id = any($1::bigint[]) returning id", list(ids))
    return sorted(row["id"] for row in rows)


async def find_oldest_parked(connection: Connection) -> datetime | None:
    """Since when the oldest record has been parked; None if none is."""
    instant: datetime | None = await connection.fetchval("select parked_at from usage_parked order by id limit 1")
    return instant


async def delete_old_parked(connection: Connection, before: datetime, limit: int) -> int:
    """Delete at most `limit` records that were parked by `before`, oldest first; returns how many."""
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

"""The offset at which a consumer group continues to read each partition: everything before it is applied or parked.

Offsets are stored in the service's own database. A failover or restore rolls them back together with the effects, and
what was lost is read again. Kafka's committed offsets are not rolled back, and serve only as a hint for tools.
"""

from collections.abc import Collection, Mapping
from datetime import datetime

from muster_runtime.database.transactions import Connection
from muster_runtime.errors import RetryableError

Partition = tuple[str, int]  # topic, number


class DatabaseWentBack(RetryableError):
    """The database has lost applied records of partitions. They must be read again before anything that follows."""

    def __init__(self, partitions: Collection[Partition]) -> None:
        super().__init__(f"the database has lost what was applied of {sorted(partitions)}")
        self.partitions = partitions


async def begins(connection: Connection, group: str) -> dict[Partition, int]:
    """The offset to continue from, for each partition that the group has read."""
    rows = await connection.fetch(
        "select topic, kafka_partition, next_offset from consumed_partition where consumer_group = $1", group
    )
    return {(row["topic"], row["kafka_partition"]): row["next_offset"] for row in rows}


async def server(connection: Connection) -> datetime:
    """When the server was started, which identifies the server and its current run."""
    started_at: datetime = await connection.fetchval("select pg_postmaster_start_time()")
    return started_at


async def keep(
    connection: Connection, group: str, read: Mapping[Partition, tuple[int, int]], server_started_at: datetime
) -> set[Partition]:
    """Store the offsets of partitions; `read` maps each to the range of offsets that was applied.

    Returns the partitions whose offset was stored. Of the others, the database does not know everything before the
    first offset: it has gone back, and what is missing must be read again. If the server was not started at
    `server_started_at`, nothing is stored: it may lack what was applied last, and the caller must first ask it where to
    continue.

    Postgres loses commits only from the end of its log, so no offset outlives an effect that was committed before it.
    So the commit need not wait for the disk: what a lost offset covers is read again and skipped. A member that has
    just lost a partition may store a lower offset than the new owner: the higher offset stays.
    """
    rows = await connection.fetch(
        """
        with hasty as (select set_config('synchronous_commit', 'off', true))
        insert into consumed_partition as kept (consumer_group, topic, kafka_partition, next_offset)
        select $1, r.topic, r.kafka_partition, r.next_offset
        from hasty, unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[])
            as r(topic, kafka_partition, first_offset, next_offset)
        left join consumed_partition as known
            on known.consumer_group = $1 and known.topic = r.topic and known.kafka_partition = r.kafka_partition
        where coalesce(known.next_offset, 0) >= r.first_offset and pg_postmaster_start_time() = $6
        on conflict (consumer_group, topic, kafka_partition)
        do update set next_offset = greatest(kept.next_offset, excluded.next_offset)
        returning topic, kafka_partition
        """,
        group,
        [topic for topic, _ in read],
        [partition for _, partition in read],
        [first for first, _ in read.values()],
        [after for _, after in read.values()],
        server_started_at,
    )
    return {(row["topic"], row["kafka_partition"]) for row in rows}


async def require(connection: Connection, group: str, first: Mapping[Partition, int]) -> None:
    """Raise DatabaseWentBack if the database does not know of everything before these offsets."""
    known = await begins(connection, group)
    if lost := {partition for partition, offset in first.items() if known.get(partition, 0) < offset}:
        raise DatabaseWentBack(lost)


async def note_topics(connection: Connection, group: str, ids: Mapping[str, str]) -> list[str]:
    """Store the topics' IDs. Returns the topics whose ID changed: the group reads them from their beginning."""
    arguments = group, list(ids), list(ids.values())
    again = await connection.fetch(
        """
        with again as (
            update consumed_topic as known
            set topic_id = found.topic_id
            from unnest($2::text[], $3::text[]) as found (topic, topic_id)
            where known.consumer_group = $1 and known.topic = found.topic and known.topic_id <> found.topic_id
            returning known.topic
        ),
        forgotten as (
            delete from consumed_partition where consumer_group = $1 and topic in (select topic from again)
        ),
        not_passed as (
            delete from passed_record where consumer_group = $1 and topic in (select topic from again)
        )
        select topic from again
        """,
        *arguments,
    )
    await connection.execute(
        """
        insert into consumed_topic (consumer_group, topic, topic_id)
        select $1, * from unnest($2::text[], $3::text[])
        on conflict do nothing
        """,
        *arguments,
    )
    return [row["topic"] for row in again]


async def forget(connection: Connection, group: str) -> None:
    """Make the group read every partition from its beginning."""
    await connection.execute("delete from consumed_partition where consumer_group = $1", group)

"""Deletes old deliveries with their attempts."""

from datetime import datetime

from muster_runtime.database.transactions import Connection


async def find_purged_before(connection: Connection) -> datetime | None:
    """The instant up to which deliveries of events may have been deleted; None if none were."""
    before: datetime | None = await connection.fetchval("select before from delivery_purge")
    return before


async def find_oldest_finish(connection: Connection) -> datetime | None:
    """When the oldest finished delivery was delivered or failed."""
    oldest: datetime | None = await connection.fetchval(
        "select min(finished_at) from delivery where finished_at is not null"
    )
    return oldest


async def delete_finished(connection: Connection, before: datetime, limit: int) -> int:
    """Delete at most `limit` deliveries that were finished by `before`, oldest first; return how many.

    A delivery that is being retried is locked by its retry and skipped.
    """
    purged: int = await connection.fetchval(
        """
        with old as (
            select id, finished_at
            from delivery
            where finished_at <= $1
            order by finished_at
            limit $2
            for update skip locked
        ),
        moved as (
            update delivery_purge
            set before = greatest(before, (select max(finished_at) from old))
            where exists (select from old)
        ),
        attempts as (
            delete from delivery_attempt where delivery_id in (select id from old)
        ),
        purged as (
            delete from delivery where id in (select id from old) returning 1
        )
        select count(*) from purged
        """,
        before,
        limit,
    )
    return purged

"""Deliveries that are done are kept for a time, with their attempts."""

from datetime import datetime, timedelta

from muster_runtime.database.retention import Retention
from muster_runtime.database.transactions import Connection


def retention(days: int) -> Retention:
    """A delivery is kept for so many days after it was made or given up."""
    return Retention("delivery", timedelta(days=days), _oldest, _purge)


async def purged_before(connection: Connection) -> datetime | None:
    """Deliveries of what happened up to this instant may be gone; None when none is."""
    before: datetime | None = await connection.fetchval("select before from delivery_purge")
    return before


async def _oldest(connection: Connection) -> datetime | None:
    oldest: datetime | None = await connection.fetchval(
        "select min(finished_at) from delivery where finished_at is not null"
    )
    return oldest


async def _purge(connection: Connection, before: datetime, limit: int) -> int:
    """One that is being retried is locked by its retry, and left alone."""
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

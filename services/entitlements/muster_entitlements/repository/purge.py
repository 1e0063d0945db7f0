"""Deletes old versions of pools, windows, and seats, and the past use of quotas."""

from datetime import datetime

from muster_runtime.database.transactions import Connection

# The tables of versions, and the column that says when one ended.
HISTORIES = {
    "pool_history": "recorded_until",
    "feature_window_history": "recorded_until",
    "seat_history": "recorded_until",
    "quota_use_history": "ends_at",
}


async def find_purged_before(connection: Connection) -> datetime | None:
    """Versions that ended by this instant may have been deleted; None if none has."""
    before: datetime | None = await connection.fetchval("select before from history_purge")
    return before


async def find_oldest_end(history: str, connection: Connection) -> datetime | None:
    """When the oldest version in a table of HISTORIES ended."""
    oldest: datetime | None = await connection.fetchval(f"select min({HISTORIES[history]}) from {history}")  # noqa: S608
    return oldest


async def delete_ended(history: str, connection: Connection, before: datetime, limit: int) -> int:
    """Delete at most `limit` versions in a table of HISTORIES that ended by `before`, oldest first; returns how many.

    The same statement stores that instant, because questions about an earlier one can no longer be answered.
    """
    ended_at = HISTORIES[history]
    purged: int = await connection.fetchval(
        f"""
        with purged as (
            delete from {history}
            where ctid = any(array(
                select ctid
                from {history}
                where {ended_at} <= $1
                order by {ended_at}
                limit $2
            ))
            returning 1
        ),
        moved as (
            update history_purge
            set before = greatest(before, $1)
            where exists (select from purged)
        )
        select count(*) from purged
        """,  # noqa: S608
        before,
        limit,
    )
    return purged

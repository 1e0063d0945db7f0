"""The retention of the audit trail, and of the records of who read personal data."""

from datetime import datetime, timedelta

from muster_runtime.database.transactions import Connection
from muster_runtime.scheduling.retention import Retention, rows_since


def of_audit(days: int) -> Retention:
    """The retention of audit rows, in days, at least 365. They are deleted by whole seals."""

    async def drop(connection: Connection, _before: datetime, limit: int) -> int:
        # The worker role may not delete rows itself, and the function uses the server's time.
        dropped: int = await connection.fetchval("select drop_sealed_audit(make_interval(days => $1), $2)", days, limit)
        return dropped

    return Retention("audit", timedelta(days=days), _oldest_seal_to_drop, drop)


async def _oldest_seal_to_drop(connection: Connection) -> datetime | None:
    """When the oldest seal that may be dropped was made; 2000-01-01 if no program can read that.

    An agency's newest seal is never dropped.
    """
    oldest: datetime | None = await connection.fetchval(
        """
        select coalesce(readable_instant(s.sealed_at), '2000-01-01 00:00:00+00')
        from audit_seal as s
        where exists (select from audit_seal as n where n.agency_id = s.agency_id and n.number > s.number)
        order by s.sealed_at
        limit 1
        """
    )
    return oldest


def of_personal_reads(days: int) -> Retention:
    """The retention of the records of who read personal data, in days."""
    return rows_since("personal_read", "read_at", timedelta(days=days))

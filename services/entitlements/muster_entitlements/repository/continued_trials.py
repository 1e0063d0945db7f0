"""How much of their trials the agencies have used that another agency continues."""

from collections.abc import Mapping
from datetime import timedelta

from muster_runtime.database.transactions import Connection


async def add_continued_trials(
    connection: Connection, agency_id: str, enrollment_id: str, used: Mapping[str, timedelta]
) -> None:
    """Count trial time that other agencies have used as used by an agency, because one of its enrollments says so."""
    await connection.execute(
        """
        insert into continued_trial as c (agency_id, feature, used, enrollment_id, added)
        select $1, feature, used, $2, used
        from unnest($3::text[], $4::interval[]) as n (feature, used)
        on conflict (agency_id, feature) do update set
            used = c.used + excluded.used,
            enrollment_id = excluded.enrollment_id,
            added = excluded.added
        """,
        agency_id,
        enrollment_id,
        list(used),
        list(used.values()),
    )


async def remove_continued_trials(connection: Connection, agency_id: str, enrollment_id: str) -> None:
    """Undo what an enrollment added."""
    await connection.execute(
        """
        update continued_trial
        set used = used - added, added = '0'
        where agency_id = $1 and enrollment_id = $2
        """,
        agency_id,
        enrollment_id,
    )

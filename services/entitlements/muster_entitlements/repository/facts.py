"""The events behind facts. The outbox's triggers store those that this service publishes, and follow a raised epoch."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from muster_contracts import Envelope
from muster_entitlements.domain.quotas import Limit
from muster_runtime.database.transactions import EVERY_AGENCY, Connection
from muster_runtime.database.unit_of_work import UnitOfWork

_ADD = """
kept_facts as (
    insert into fact_event (agency_id, subject, event_id, type, time)
    select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
    on conflict do nothing
)
"""

# The events that no explanation shows anymore, and since when at the earliest: they are not about the catalog, a pool's
# enrollment with its terms and windows, or a current grant of a feature or of uses. A grant that has ended is shown
# until its period ends, which is at most a day after the shortest retention.
_OVER = """
    present as (
        select agency_id, enrollment_id as subject
        from pool
        union all
        select t.agency_id, t.term_id
        from term as t
        join pool as p using (agency_id, enrollment_id)
        union all
        select w.agency_id, w.window_id
        from feature_window as w
        join pool as p using (agency_id, enrollment_id)
        union all
        select agency_id, grant_id
        from entitlement_grant
        where revoked_at is null and ends_at is null
        union all
        select agency_id, grant_id
        from quota_grant
        where ends_at is null
    ),
    over as (
        select f.ctid as place, greatest(f.time, coalesce(g.revoked_at, g.ends_at, q.ends_at)) as since
        from fact_event as f
        left join entitlement_grant as g on g.agency_id = f.agency_id and g.grant_id = f.subject
        left join quota_grant as q on q.agency_id = f.agency_id and q.grant_id = f.subject
        where
            f.agency_id <> '*'
            and not exists (select from present as p where p.agency_id = f.agency_id and p.subject = f.subject)
    )
"""


@dataclass(frozen=True, slots=True)
class FactEvent:
    """An event behind a fact."""

    event_id: str
    type: str
    time: datetime


def add_event(uow: UnitOfWork, subject: str, envelope: Envelope) -> None:
    """Store that an event is behind an enrollment or a term."""
    uow.writes.add_row(_ADD, envelope.agency_id, subject, envelope.id, envelope.type, envelope.time)


async def list_events(
    connection: Connection, agency_id: str, subjects: Iterable[str]
) -> defaultdict[str, list[FactEvent]]:
    """The events behind facts of an agency and of the program, by fact, oldest first."""
    rows = await connection.fetch(
        """
        select subject, event_id, type, time
        from fact_event
        where agency_id in ($1, $2) and subject = any($3::text[])
        order by time, event_id
        """,
        agency_id,
        EVERY_AGENCY,
        list(subjects),
    )
    found: defaultdict[str, list[FactEvent]] = defaultdict(list)
    for row in rows:
        found[row["subject"]].append(FactEvent(row["event_id"], row["type"], row["time"]))
    return found


async def list_quota_events(connection: Connection, limit: Limit, subject_ref: str) -> list[FactEvent]:
    """The thresholds that a subject's use crossed in a limit's period, and whether it exceeded one, oldest first."""
    rows = await connection.fetch(
        """
        select event_id, type, time
        from quota_event
        where agency_id = $1 and feature = $2 and subject_ref = $3 and starts_at = $4
        order by time, event_id
        """,
        limit.agency_id,
        limit.feature,
        subject_ref,
        limit.period.starts_at,
    )
    return [FactEvent(**row) for row in rows]


async def find_oldest_over(connection: Connection) -> datetime | None:
    """The earliest instant since when an event has not been shown by any explanation; None if there is none."""
    oldest: datetime | None = await connection.fetchval(f"with {_OVER} select min(since) from over")  # noqa: S608
    return oldest


async def delete_over(connection: Connection, before: datetime, limit: int) -> int:
    """Delete at most `limit` events that no explanation has shown since `before`, oldest first; returns how many."""
    deleted: int = await connection.fetchval(
        f"""
        with {_OVER},
        deleted as (
            delete from fact_event
            where ctid = any(array(select place from over where since <= $1 order by since limit $2))
            returning 1
        )

        select count(*) from deleted
        """,  # noqa: S608
        before,
        limit,
    )
    return deleted

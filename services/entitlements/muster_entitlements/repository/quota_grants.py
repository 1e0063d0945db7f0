"""Grants of uses beyond a quota."""

from collections.abc import Sequence
from datetime import datetime

from muster_entitlements.domain.quotas import WHOLE_AGENCY, Limit, QuotaGrant, Sum
from muster_runtime.database.connections import Connection
from muster_runtime.database.writes import Write


async def add_grant(connection: Connection, grant: QuotaGrant, now: datetime) -> None:
    """Add a grant."""
    await connection.execute(
        """
        insert into quota_grant (
            agency_id, grant_id, feature, subject_ref, amount, spent, priority, starts_at, ends_at, granted_at
        )
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        grant.agency_id,
        grant.grant_id,
        grant.feature,
        grant.subject_ref,
        grant.amount,
        grant.spent,
        grant.priority,
        grant.starts_at,
        grant.ends_at,
        now,
    )


async def count_unspent(connection: Connection, grant: QuotaGrant, now: datetime) -> int:
    """How many grants of the same feature to the same subject are neither spent nor over."""
    found: int = await connection.fetchval(
        """
        select count(*)
        from quota_grant
        where
            agency_id = $1 and feature = $2 and subject_ref = $3 and spent < amount
            and (ends_at is null or ends_at > $4)
        """,
        grant.agency_id,
        grant.feature,
        grant.subject_ref,
        now,
    )
    return found


async def find_grants_for(connection: Connection, totals: Sequence[Sum]) -> list[QuotaGrant]:
    """The unspent grants that may pay for uses of these sums, oldest first.

    A grant that ended before the oldest of their periods pays for none, however late the uses are reported.
    """
    if not totals:
        return []
    rows = await connection.fetch(
        """
        select agency_id, grant_id, feature, subject_ref, amount, spent, priority, starts_at, ends_at
        from quota_grant
        where
            agency_id = any($1::text[]) and feature = any($2::text[]) and subject_ref = any($3::text[])
            and spent < amount and (ends_at is null or ends_at > $4)
        order by grant_id
        """,
        list({total.agency_id for total in totals}),
        list({total.feature for total in totals}),
        [WHOLE_AGENCY, *{total.subject_ref for total in totals}],
        min(total.starts_at for total in totals),
    )
    return [QuotaGrant(**row) for row in rows]


async def list_grants_of(connection: Connection, limit: Limit, subject_ref: str) -> list[QuotaGrant]:
    """The grants that may pay for a subject's use under a limit, in its period or later, in the order of spending.

    Grants that ended within the period are included: they may have paid for use, or may still pay for late use.
    """
    rows = await connection.fetch(
        """
        select agency_id, grant_id, feature, subject_ref, amount, spent, priority, starts_at, ends_at
        from quota_grant
        where
            agency_id = $1 and feature = $2 and subject_ref = any($3::text[]) and (ends_at is null or ends_at > $4)
        order by priority, ends_at nulls last, grant_id
        """,
        limit.agency_id,
        limit.feature,
        [WHOLE_AGENCY, subject_ref],
        limit.period.starts_at,
    )
    return [QuotaGrant(**row) for row in rows]


def save_spent(grants: Sequence[QuotaGrant]) -> Write:
    """Store how much of grants is spent."""
    return (
        """
        spent_grants as (
            update quota_grant as g
            set spent = s.spent
            from unnest($1::text[], $2::text[], $3::bigint[]) as s (agency_id, grant_id, spent)
            where g.agency_id = s.agency_id and g.grant_id = s.grant_id
        )
        """,
        [
            [grant.agency_id for grant in grants],
            [grant.grant_id for grant in grants],
            [grant.spent for grant in grants],
        ],
    )

"""The past of quotas: whether one was used up, which is all that is kept of counted use."""

from collections.abc import Collection, Iterable
from datetime import datetime

from muster_entitlements.domain.as_of import AsOf
from muster_entitlements.domain.quotas import WHOLE_AGENCY, Limit, QuotaGrant, Sum, Used, use_of, whose
from muster_runtime.database.transactions import Connection


async def find_used(
    as_of: AsOf, connection: Connection, limit: Limit, subject_refs: Collection[str], at: datetime
) -> dict[str, Used]:
    """What a quota left people at a past instant, by reference. Only whether that was 0 is exact.

    Uses since a quota's last publication are missing, and a grant that is not spent counts as whole.
    """
    subjects, period = {whose(limit.quota, subject_ref) for subject_ref in subject_refs}, limit.period
    charged = await _find_charged(connection, limit, subjects, as_of)
    sums = {
        subject_ref: Sum(
            agency_id=limit.agency_id,
            feature=limit.feature,
            subject_ref=subject_ref,
            starts_at=period.starts_at,
            ends_at=period.ends_at,
            used=charged.get(subject_ref, 0),
        )
        for subject_ref in subjects
    }
    return await use_of(limit, subject_refs, sums, await _list_unspent(connection, limit, subjects, as_of), at)


async def _find_charged(
    connection: Connection, limit: Limit, subject_refs: Iterable[str], as_of: AsOf
) -> dict[str, int]:
    """The uses that counted against the quota when its use was last published, by subject."""
    rows = await connection.fetch(
        """
        select subject_ref, max(charged) as charged
        from quota_use_history
        where
            agency_id = $1 and feature = $2 and subject_ref = any($3::text[]) and starts_at = $4
            and recorded_from <= $5
        group by subject_ref
        """,
        limit.agency_id,
        limit.feature,
        list(subject_refs),
        limit.period.starts_at,
        as_of.version_at,
    )
    return {row["subject_ref"]: row["charged"] for row in rows}


async def _list_unspent(
    connection: Connection, limit: Limit, subject_refs: Iterable[str], as_of: AsOf
) -> list[QuotaGrant]:
    """The grants to these subjects, or to the whole agency, of which something was left."""
    rows = await connection.fetch(
        """
        select agency_id, grant_id, feature, subject_ref, amount, 0 as spent, priority, starts_at, ends_at
        from quota_grant
        where
            agency_id = $1 and feature = $2 and subject_ref = any($3::text[])
            and granted_at <= $4 and (spent_at is null or spent_at > $4) and (ends_at is null or ends_at > $5)
        """,
        limit.agency_id,
        limit.feature,
        [WHOLE_AGENCY, *subject_refs],
        as_of.version_at,
        as_of.at,
    )
    return [QuotaGrant(**row) for row in rows]

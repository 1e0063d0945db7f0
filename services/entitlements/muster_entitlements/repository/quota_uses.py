"""How much of quotas is used, as last published."""

from collections.abc import Collection, Sequence
from dataclasses import astuple
from datetime import datetime

from muster_entitlements.domain.meters import Limits
from muster_entitlements.domain.quotas import Period, PublishedUse
from muster_runtime.database.connections import Connection
from muster_runtime.database.writes import Write


async def list_next(
    connection: Connection, agency_id: str, feature: str, period: Period, first: str, most: int
) -> list[str]:
    """The next subjects, from `first` on, with use in a period, or for whom use was published; in order."""
    rows = await connection.fetch(
        """
        select subject_ref
        from (
            (
                select subject_ref
                from usage_sum
                where agency_id = $1 and feature = $2 and starts_at = $3 and subject_ref >= $4
                order by subject_ref
                limit $5
            )
            union
            (
                select subject_ref
                from quota_use
                where agency_id = $1 and feature = $2 and subject_ref >= $4
                order by subject_ref
                limit $5
            )
        ) as subject
        order by subject_ref
        limit $5
        """,
        agency_id,
        feature,
        period.starts_at,
        first,
        most,
    )
    return [row["subject_ref"] for row in rows]


async def list_untold(
    connection: Connection,
    agency_id: str,
    feature: str,
    limits: Limits,
    subject_refs: Collection[str],
    now: datetime,
) -> list[PublishedUse]:
    """The current use of those of these subjects for whom something else was published, or nothing.

    These are subjects who have used up a limit, subjects who crossed a threshold before the period began, and all
    subjects for whom another period was published that has not ended.
    """
    rows = await connection.fetch(
        """
        with counted as not materialized (
            select agency_id, subject_ref, feature, used, used - granted as charged, told
            from usage_sum
            where agency_id = $1 and feature = $2 and starts_at = $3 and subject_ref = any($8::text[])
        ),

        published as not materialized (
            select agency_id, subject_ref, feature, charged, quota, starts_at, ends_at
            from quota_use
            where agency_id = $1 and feature = $2 and subject_ref = any($8::text[])
        )

        select c.agency_id, c.subject_ref, c.feature, c.used, c.charged, l.quota
        from counted as c
        left join published as p using (agency_id, subject_ref, feature)
        left join entitlement_grant as g
            on g.agency_id = c.agency_id and g.feature = c.feature and g.subject_ref = c.subject_ref
            and g.mode = 'quota' and g.revoked_at is null and g.starts_at <= $7
            and (g.ends_at is null or g.ends_at > $7)
        cross join lateral (
            select case when c.subject_ref = '' then $5::bigint else least($6::bigint, g.monthly_quota) end as quota
        ) as l
        where
            (c.charged >= l.quota and (p.starts_at, p.ends_at) = ($3, $4) and p.charged <> c.charged)
            or ((c.charged >= l.quota or (c.told > 0 and l.quota is not null)) and coalesce(p.ends_at <= $7, true))
        union all
        select p.agency_id, p.subject_ref, p.feature, coalesce(c.used, 0), coalesce(c.charged, 0), p.quota
        from published as p
        left join counted as c using (agency_id, subject_ref, feature)
        where p.ends_at > $7 and (p.starts_at, p.ends_at) <> ($3, $4)
        """,
        agency_id,
        feature,
        limits.period.starts_at,
        limits.period.ends_at,
        limits.of_all,
        limits.of_each,
        now,
        list(subject_refs),
    )
    period = limits.period
    return [PublishedUse(**row, starts_at=period.starts_at, ends_at=period.ends_at) for row in rows]


def save_uses(uses: Sequence[PublishedUse]) -> Write:
    """Store uses, which replace earlier ones of the same subject and feature."""
    return (
        """
        saved_uses as (
            insert into quota_use (agency_id, subject_ref, feature, used, charged, quota, starts_at, ends_at)
            select *
            from unnest(
                $1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[],
                $7::timestamptz[], $8::timestamptz[]
            )
            on conflict (agency_id, subject_ref, feature) do update
            set
                used = excluded.used, charged = excluded.charged, quota = excluded.quota,
                starts_at = excluded.starts_at, ends_at = excluded.ends_at
        )
        """,
        [list(column) for column in zip(*map(astuple, uses), strict=True)],
    )

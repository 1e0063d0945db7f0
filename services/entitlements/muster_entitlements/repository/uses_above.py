"""Who has used more in the current period than quotas would allow."""

from collections.abc import Sequence
from datetime import datetime

from muster_contracts.entitlements import QuotaScope
from muster_entitlements.domain.lowered_quotas import Above, LoweredQuota
from muster_runtime.database.connections import Connection


async def find_above(connection: Connection, quotas: Sequence[LoweredQuota], at: datetime) -> list[Above]:
    """How many people exceed each quota, by agency and feature. People whom the quota does not stop do not count.

    Those have a grant of the feature, or an unspent quota grant, at an instant, or a seat whose trial continues. One
    statement reads the sums of these agencies, features, and periods, and no others.
    """
    rows = await connection.fetch(
        """
        with lowered as (
            select *
            from unnest($1::text[], $2::text[], $3::boolean[], $4::timestamptz[], $5::bigint[], $6::timestamptz[])
                as l (agency_id, feature, shared, starts_at, quota, begun_until)
        ),

        above as (
            select s.agency_id, s.feature, s.subject_ref, s.used - s.granted as charged, null as begun_until
            from lowered as l
            join usage_sum as s using (agency_id, feature, starts_at)
            where l.shared and s.subject_ref = '' and s.used - s.granted > l.quota and s.starts_at = any($4)
            union all
            select s.agency_id, s.feature, s.subject_ref, s.used - s.granted as charged, l.begun_until
            from lowered as l
            join usage_sum as s using (agency_id, feature, starts_at)
            where not l.shared and s.subject_ref <> '' and s.used - s.granted > l.quota and s.starts_at = any($4)
        )

        select
            a.agency_id, a.feature,
            count(*) filter (where a.subject_ref <> '')::integer as people, max(a.charged) as most
        from above as a
        where
            not exists (
                select
                from entitlement_grant as g
                where
                    g.agency_id = a.agency_id and g.feature = a.feature and g.subject_ref = a.subject_ref
                    and g.revoked_at is null and g.starts_at <= $7 and (g.ends_at is null or g.ends_at > $7)
            )
            and not exists (
                select
                from quota_grant as q
                where
                    q.agency_id = a.agency_id and q.feature = a.feature and q.subject_ref = a.subject_ref
                    and q.spent < q.amount and q.starts_at <= $7 and (q.ends_at is null or q.ends_at > $7)
            )
            and (
                a.begun_until is null or not exists (
                    select
                    from seat as t
                    where
                        t.agency_id = a.agency_id and t.subject_ref = a.subject_ref and t.state <> 'revoked'
                        and t.generation = (select p.generation from pool as p where p.agency_id = a.agency_id)
                        and coalesce(t.trial_began_at, t.activated_at, 'infinity') > a.begun_until
                )
            )
        group by a.agency_id, a.feature
        order by a.agency_id, a.feature
        """,
        [quota.agency_id for quota in quotas],
        [quota.feature for quota in quotas],
        [quota.per is QuotaScope.AGENCY for quota in quotas],
        [quota.starts_at for quota in quotas],
        [quota.limit for quota in quotas],
        [quota.begun_until for quota in quotas],
        at,
    )
    return [Above(**row) for row in rows]

"""Who has used more in the present period than quotas would allow."""

from collections.abc import Sequence
from datetime import datetime

from muster_contracts.entitlements import QuotaScope
from muster_entitlements.domain.lowered_quotas import Above, LoweredQuota
from muster_runtime.database.connections import Connection


async def find_above(connection: Connection, quotas: Sequence[LoweredQuota], at: datetime) -> list[Above]:
    """Of each quota that is used above its limit by how many, by agency; whoever has a grant then does not count.

    One statement reads the sums of these agencies, features, and periods, and no others.
    """
    rows = await connection.fetch(
        """
        with lowered as (
            select *
            from unnest($1::text[], $2::text[], $3::boolean[], $4::timestamptz[], $5::bigint[])
                as l (agency_id, feature, shared, starts_at, quota)
        ),

        above as (
            select s.agency_id, s.feature, 0 as people, s.used - s.granted as charged
            from lowered as l
            join usage_sum as s using (agency_id, feature, starts_at)
            where l.shared and s.subject_ref = '' and s.used - s.granted > l.quota and s.starts_at = any($4)
            union all
            select s.agency_id, s.feature, 1 as people, s.used - s.granted as charged
            from lowered as l
            join usage_sum as s using (agency_id, feature, starts_at)
            where
                not l.shared and s.subject_ref <> '' and s.used - s.granted > l.quota and s.starts_at = any($4)
                and not exists (
                    select
                    from entitlement_grant as g
                    where
                        g.agency_id = s.agency_id and g.feature = s.feature and g.subject_ref = s.subject_ref
                        and g.revoked_at is null and g.starts_at <= $6 and (g.ends_at is null or g.ends_at > $6)
                )
        )

        select agency_id, feature, sum(people)::integer as people, max(charged) as most
        from above
        group by agency_id, feature
        order by agency_id, feature
        """,
        [quota.agency_id for quota in quotas],
        [quota.feature for quota in quotas],
        [quota.per is QuotaScope.AGENCY for quota in quotas],
        [quota.starts_at for quota in quotas],
        [quota.limit for quota in quotas],
        at,
    )
    return [Above(**row) for row in rows]

"""How much of quotas is used, as of the last threshold that was published."""

from collections.abc import Sequence
from dataclasses import astuple

from muster_entitlements.domain.quotas import PublishedUse
from muster_runtime.database.writes import Write


def save_uses(uses: Sequence[PublishedUse]) -> Write:
    """Store uses in place of earlier ones of the same subject and feature."""
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

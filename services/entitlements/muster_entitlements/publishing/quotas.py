"""Turns sums of uses and quota grants into events about quotas."""

from muster_contracts.entitlements import (
    AgencyQuotaThresholdCrossed,
    QuotaExceeded,
    QuotaGranted,
    QuotaThresholdCrossed,
)
from muster_entitlements.domain.catalog import Quota
from muster_entitlements.domain.quotas import QuotaGrant, Sum


def quota_threshold_crossed(total: Sum, quota: Quota, percent: int, seat_id: str | None) -> QuotaThresholdCrossed:
    """A person's use crossed a threshold of a quota. `seat_id` is None for a person without a seat."""
    return QuotaThresholdCrossed(
        agency_id=total.agency_id,
        feature=total.feature,
        subject_ref=total.subject_ref,
        threshold_percent=percent,
        used=total.used,
        charged=total.charged,
        quota=quota.limit,
        period_starts_at=total.starts_at,
        period_ends_at=total.ends_at,
        seat_id=seat_id,
    )


def agency_quota_threshold_crossed(total: Sum, quota: Quota, percent: int) -> AgencyQuotaThresholdCrossed:
    """The use of a whole agency crossed a threshold of its quota."""
    return AgencyQuotaThresholdCrossed(
        agency_id=total.agency_id,
        feature=total.feature,
        threshold_percent=percent,
        used=total.used,
        charged=total.charged,
        quota=quota.limit,
        period_starts_at=total.starts_at,
        period_ends_at=total.ends_at,
    )


def quota_exceeded(total: Sum, quota: Quota, seat_id: str | None) -> QuotaExceeded:
    """Use exceeds a quota. `seat_id` is None for an agency, or a person without a seat."""
    return QuotaExceeded(
        agency_id=total.agency_id,
        feature=total.feature,
        subject_ref=total.subject_ref or None,
        used=total.used,
        charged=total.charged,
        quota=quota.limit,
        excess=total.excess,
        enforced=quota.enforced,
        period_starts_at=total.starts_at,
        period_ends_at=total.ends_at,
        seat_id=seat_id,
    )


def quota_granted(grant: QuotaGrant) -> QuotaGranted:
    """Uses beyond a quota are granted. The audit trail alone has the reason."""
    return QuotaGranted(
        agency_id=grant.agency_id,
        feature=grant.feature,
        grant_id=grant.grant_id,
        subject_ref=grant.subject_ref or None,
        amount=grant.amount,
        priority=grant.priority,
        starts_at=grant.starts_at,
        ends_at=grant.ends_at,
    )

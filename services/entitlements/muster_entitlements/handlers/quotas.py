"""Charges uses to quotas and grants, and publishes what that crosses."""

from collections.abc import Sequence
from operator import attrgetter

from muster_entitlements.domain.catalog import Quota
from muster_entitlements.domain.charges import Charge, Count, Limited, charge_in_time
from muster_entitlements.domain.quotas import WHOLE_AGENCY, PublishedUse, QuotaGrant, Sum
from muster_entitlements.handlers.quota_terms import QUOTA_USES_TOLD
from muster_entitlements.handlers.snapshots import publish_uses
from muster_entitlements.publishing.quotas import (
    agency_quota_threshold_crossed,
    quota_exceeded,
    quota_threshold_crossed,
)
from muster_entitlements.repository import quota_grants, seats, usage
from muster_runtime.database import writes
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline


async def charge_quotas(uow: UnitOfWork, limited: Sequence[Limited]) -> None:
    """Charge uses that are already counted: store what paid for them, and publish what they cross.

    Grants are read only if a quota does not pay for all uses.
    """
    counted = [charged for each in limited for charged in charge_in_time([each], [])]
    above = [number for number, charged in enumerate(counted) if any(count.above for _, count in charged)]
    if above:
        grants = await quota_grants.find_grants_for(uow.connection, [limited[number].total for number in above])
        for number, charged in zip(above, charge_in_time([limited[number] for number in above], grants), strict=True):
            counted[number] = charged
    await save_counts(uow, counted)


async def save_counts(uow: UnitOfWork, counted: Sequence[Sequence[tuple[Charge, Count]]]) -> None:
    """Store the sums that charging changed, and the grants that paid; publish what was crossed.

    Each sum has its charges in order of time.
    """
    changed = [
        after
        for before, after in ((charged[0][0].total, charged[-1][1].total) for charged in counted)
        if (after.granted, after.excess, after.told) != (before.granted, before.excess, before.told)
    ]
    spends = [grant for charged in counted for _, count in charged for grant in count.spent]
    spent = {grant.grant_id: grant for grant in sorted(spends, key=attrgetter("spent"))}  # sums may share one
    if changed:
        uow.writes.add(usage.save_sums(changed))
    if spent:
        await writes.execute(uow.connection, quota_grants.save_spent(list(spent.values())))
    await _publish_crossed(uow, [each for charged in counted for each in charged])
    await _tell_copies(uow, counted, [grant for grant in spent.values() if not grant.left])


async def _publish_crossed(uow: UnitOfWork, counted: Sequence[tuple[Charge, Count]]) -> None:
    """Publish which thresholds sums crossed, and which sums exceed their quotas, each once per period."""
    people = {
        (count.total.agency_id, count.total.subject_ref)
        for _, count in counted
        if (count.thresholds or count.exceeded) and count.total.subject_ref != WHOLE_AGENCY
    }
    seat_ids = await seats.find_seat_ids(uow.connection, people) if people else {}
    for charge, count in counted:
        quota = charge.quota
        seat_id = seat_ids.get((count.total.agency_id, count.total.subject_ref))
        for percent in count.thresholds:
            if count.total.subject_ref == WHOLE_AGENCY:
                uow.publish(agency_quota_threshold_crossed(count.total, quota, percent))
            else:
                uow.publish(quota_threshold_crossed(count.total, quota, percent, seat_id))
        if count.exceeded:
            uow.publish(quota_exceeded(count.total, quota, seat_id))


async def _tell_copies(
    uow: UnitOfWork, counted: Sequence[Sequence[tuple[Charge, Count]]], spent: Sequence[QuotaGrant]
) -> None:
    """Publish how much of quotas is used in the current period, and that grants are spent.

    A reporter's clock may be ahead: use of the next period is published when that period begins.
    """
    told = [charged[-1] for charged in counted if any(count.tells for _, count in charged)]
    lasting = [(charge.quota, count.total) for charge, count in told if count.total.ends_at > uow.now]
    present = [_use(quota, total) for quota, total in lasting if total.starts_at <= uow.now]
    ahead = [total for _, total in lasting if total.starts_at > uow.now]
    await publish_uses(uow, present, spent)
    deadlines.schedule(
        uow, [Deadline(QUOTA_USES_TOLD, total.agency_id, total.feature, total.starts_at) for total in ahead]
    )


def _use(quota: Quota, total: Sum) -> PublishedUse:
    return PublishedUse(
        agency_id=total.agency_id,
        subject_ref=total.subject_ref,
        feature=total.feature,
        used=total.used,
        charged=total.charged,
        quota=quota.limit,
        starts_at=total.starts_at,
        ends_at=total.ends_at,
    )

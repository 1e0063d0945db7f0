"""Charges uses to quotas and grants, and publishes what that crosses."""

from collections.abc import Sequence

from muster_entitlements.domain.catalog import Quota
from muster_entitlements.domain.quotas import WHOLE_AGENCY, Charge, Count, PublishedUse, Sum
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


async def charge_quotas(uow: UnitOfWork, charges: Sequence[Charge]) -> None:
    """Charge uses that are counted already: store what paid for them, and publish what they cross.

    Grants are read only where a quota does not pay for all.
    """
    counts = [charge.paid_by([]) for charge in charges]
    above = [number for number, count in enumerate(counts) if count.above]
    if above:
        totals = [charges[number].total for number in above]
        grants = {grant.grant_id: grant for grant in await quota_grants.find_grants_for(uow.connection, totals)}
        for number in above:
            total = charges[number].total
            own = [grant for grant in grants.values() if grant.pays_for(total)]
            counts[number] = charges[number].paid_by(own)
            grants |= {grant.grant_id: grant for grant in counts[number].spent}
    await save_counts(uow, charges, counts)


async def save_counts(uow: UnitOfWork, charges: Sequence[Charge], counts: Sequence[Count]) -> None:
    """Store the sums that are more than added to, and the grants that paid; publish what was crossed."""
    changed = [
        count.total
        for charge, count in zip(charges, counts, strict=True)
        if (count.total.granted, count.total.excess, count.total.told)
        != (charge.total.granted, charge.total.excess, charge.total.told)
    ]
    spent = {grant.grant_id: grant for count in counts for grant in count.spent}
    if changed:
        uow.writes.add(usage.save_sums(changed))
    if spent:
        await writes.execute(uow.connection, quota_grants.save_spent(list(spent.values())))
    await _publish_crossed(uow, list(zip(charges, counts, strict=True)))


async def _publish_crossed(uow: UnitOfWork, counted: Sequence[tuple[Charge, Count]]) -> None:
    """Publish the thresholds that sums crossed, and that they lie above their quotas: once each a period.

    Copies learn what is used of the present period. A clock of those who report use may be ahead: what is used up of
    the next period is told when that begins.
    """
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
    told = [(charge.quota, count.total) for charge, count in counted if count.tells and count.total.ends_at > uow.now]
    present = [_use(quota, total) for quota, total in told if total.starts_at <= uow.now]
    ahead = [total for _, total in told if total.starts_at > uow.now]
    spent = [grant for _, count in counted for grant in count.spent if not grant.left]
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

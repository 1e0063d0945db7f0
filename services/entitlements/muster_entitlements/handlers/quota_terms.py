"""Publishes to snapshot copies again how much of quotas is used, when the terms by which it counts change.

Copies know the use as of its last threshold. A new limit, another period, or a granted quota can make them wrong. The
tables alone show what is still to be published, so a killed step loses nothing.
"""

from collections.abc import Iterable, Sequence

from muster_entitlements.domain.quotas import PublishedUse
from muster_entitlements.handlers.snapshots import publish_uses
from muster_entitlements.repository import catalogs, grants, quota_uses
from muster_entitlements.repository.meters import find_last, find_meters
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

QUOTA_USES_TOLD = "quota-uses-told"

# The most people in a step.
STEP_PEOPLE = 1_000


async def tell_uses(uow: UnitOfWork, agency_id: str, cause: str | None = None) -> None:
    """Publish the current use of quotas for which copies are wrong, because an agency's terms may have changed.

    Call it after windows, or grants with a quota, are stored. Without a pool, it does nothing. It does one step, and
    schedules the next: immediately if any people are left, or else when a grant with a quota begins or ends.
    """
    catalog = await catalogs.find_catalog(uow.connection, uow.now)
    meter = (await find_meters(uow.connection, {agency_id: ()}, uow.now, catalog)).get(agency_id)
    if meter is None:
        return
    granted = await grants.list_of_quotas(uow.connection, agency_id, uow.now)
    outlived = await find_last(uow.connection, {grant.feature for grant in granted} - meter.features.keys(), catalog)
    uses: list[PublishedUse] = []
    for feature in (*meter.features.values(), *outlived.values()):
        own = [grant for grant in granted if grant.feature == feature.key]
        if (own or feature.stated_quota) and len(uses) < STEP_PEOPLE:
            limits = meter.limits(feature, uow.now, own)
            uses += await quota_uses.list_untold(
                uow.connection, agency_id, feature.key, limits, now=uow.now, most=STEP_PEOPLE
            )
    await publish_uses(uow, uses, [], cause)
    turns = [at for grant in granted for at in (grant.starts_at, grant.ends_at) if at is not None and at > uow.now]
    if len(uses) >= STEP_PEOPLE:
        turns.append(uow.now)
    if turns:
        deadlines.schedule(uow, [Deadline(QUOTA_USES_TOLD, agency_id, agency_id, min(turns))])


def tell_uses_next(uow: UnitOfWork, agencies: Iterable[str]) -> None:
    """Have tell_uses called for agencies right after this transaction. It schedules what it may replace here again."""
    deadlines.schedule(
        uow, [Deadline(QUOTA_USES_TOLD, agency_id, agency_id, uow.now) for agency_id in sorted(agencies)]
    )


async def on_quota_uses_told_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Publish the use of the next people, or of those whom another quota limits from now on."""
    await tell_uses(uow, due[0].agency_id)

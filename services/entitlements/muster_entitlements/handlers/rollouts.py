"""Rolls out versions of the feature catalog to the agencies that are already enrolled, one agency per transaction.

The tables alone show what is left to do. So a kill loses at most one agency's step, and an agency that enrolled with an
earlier version while a new one was published is found too.
"""

from collections.abc import Sequence
from datetime import datetime

from muster_contracts.entitlements import CatalogRule
from muster_entitlements import publishing
from muster_entitlements.domain.catalog import Catalog, packaged_catalog
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.rollouts import Change, NextTerm, adopt, follow_graces, opens_after_grace
from muster_entitlements.domain.windows import Extension
from muster_entitlements.handlers.adoptions import ADOPTIONS, CATALOG_AFTER_GRACE, CATALOG_NEXT_TERM
from muster_entitlements.handlers.quota_terms import tell_uses
from muster_entitlements.handlers.seat_trials import (
    SEAT_TRIAL_ENDS,
    SEAT_TRIALS_ENDING_SOON,
    cancel_seat_trials,
    go_on_with_seat_trials,
    open_seat_trials,
)
from muster_entitlements.handlers.snapshots import publish_agency
from muster_entitlements.handlers.trials import (
    GRACE_ENDED,
    TRIAL_ENDING_SOON,
    TRIAL_EXPIRED,
    cancel_trials,
    find_announced_ends,
    reschedule_trial,
    schedule_trials,
)
from muster_entitlements.repository import catalogs, pools, windows
from muster_entitlements.repository.catalogs import Adoption
from muster_entitlements.repository.usage import find_versions
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.observability import audit
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

# The deadlines of trials, which a version may move.
OF_TRIALS = (TRIAL_ENDING_SOON, TRIAL_EXPIRED, GRACE_ENDED, SEAT_TRIALS_ENDING_SOON, SEAT_TRIAL_ENDS)

# The deadlines that a version with the rule `now` waits for: it would cancel those of trials, or replace an earlier
# version.
WAITED_FOR = (*OF_TRIALS, *ADOPTIONS)


class WaitsForParked(Exception):
    """A version that is due waits for a parked deadline that it would cancel or overtake, so it is parked too."""

    def __init__(self) -> None:
        super().__init__("an earlier deadline of a trial or a version is parked: retry that one first, then this one")


async def roll_out(uow: UnitOfWork, agency_id: str) -> bool:
    """Adopt the newest version that applies to the agency now, and store which one waits for its next term.

    Returns False and adopts nothing if a due event of a trial is unpublished, or an earlier version is due.
    """
    pool = await pools.find_pool(uow.connection, agency_id)
    if pool is None or pool.is_over:
        return True
    adoption = await catalogs.find_adoption(uow.connection, agency_id)
    versions = await catalogs.list_published(uow.connection, adoption.number)
    later = [version.number for version in versions if version.rule is CatalogRule.NEXT_TERM]
    next_after = adoption.next_after or pool.ends_at
    if at_once := [version for version in versions if version.rule is CatalogRule.NOW]:
        due = await deadlines.find_due(uow.connection, agency_id, WAITED_FOR, uow.now)
        if due.waiting or due.parked:
            replaces = later and adoption.comes_by(uow.now)  # a retry may succeed with a corrected one
            if replaces and (await deadlines.find_due(uow.connection, agency_id, [CATALOG_NEXT_TERM], uow.now)).parked:
                replaced = Adoption(adoption.number, later[-1], next_after)
                await catalogs.save_adoption(uow.connection, agency_id, replaced)
            return False
        await _adopt(uow, pool, at_once[-1].catalog, uow.now)
        adoption, next_after = Adoption(at_once[-1].number, None), pool.ends_at
        later = [number for number in later if number > adoption.number]
    elif (await deadlines.find_due(uow.connection, agency_id, [CATALOG_NEXT_TERM], uow.now)).waiting:
        return False  # the term that an earlier version waited for has begun
    if later:
        adoption = Adoption(adoption.number, later[-1], next_after)
        schedule_next_term(uow, pool)
        if await extend_windows(uow, pool, adoption):  # an earlier waiting version may have let them end
            await pools.save_revision(uow.connection, agency_id)
            await publish_agency(uow, agency_id)
            await tell_uses(uow, agency_id)  # a period may have ended with the term
    await catalogs.save_adoption(uow.connection, agency_id, adoption)
    return True


def schedule_next_term(uow: UnitOfWork, pool: Pool) -> None:
    """Schedule an adoption at the end of the pool's term: of the version that waits then, or of the current one again.

    An earlier deadline stays: the term after a renewal has not begun yet.
    """
    deadlines.schedule_earlier(uow, Deadline(CATALOG_NEXT_TERM, pool.agency_id, pool.agency_id, pool.ends_at))


def cancel_next_term(uow: UnitOfWork, agency_id: str) -> None:
    """Cancel the adoptions that are scheduled for an enrollment that is over."""
    for kind in ADOPTIONS:
        deadlines.cancel(uow, agency_id, kind, [agency_id])


async def on_catalog_next_term_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Adopt the version that waited for the term that begins. Without a renewal, do nothing: it may still arrive.

    If no version waited, the current one is adopted again, so that its trials follow the windows that end. A version
    that was published after the term began, while the renewal was late, takes effect only now, so that its trials have
    their full length. If one with the rule `now` was published earlier, but reached the agency while the renewal was
    late, the features that are new to the agency open only now.
    """
    agency_id, at = due[0].agency_id, due[0].due_at
    pool = await pools.find_pool(uow.connection, agency_id)
    if pool is None or pool.is_over or pool.ends_at <= at:
        return
    if await _waits_for(uow, OF_TRIALS, due):
        return
    adoption = await catalogs.find_adoption(uow.connection, agency_id)
    comes = adoption.next_number if adoption.comes_by(at) else None
    version = await catalogs.find_version(uow.connection, comes or adoption.number)
    if version is not None and version.published_at is not None and version.published_at > at:
        arrives = max(uow.now, version.published_at)  # another agency's clock may be ahead
        deadlines.schedule(uow, [Deadline(CATALOG_NEXT_TERM, agency_id, agency_id, arrives)])
        return
    if adoption.next_number is not None and adoption.comes_by(at):
        await _adopt(uow, pool, await _find_catalog(uow, adoption.next_number), at)
        await catalogs.save_adoption(uow.connection, agency_id, Adoption(adoption.next_number, None))
        return
    await _adopt_again(uow, pool, adoption, at)
    if adoption.next_after is not None and adoption.next_after > at:
        deadlines.schedule_earlier(uow, Deadline(CATALOG_NEXT_TERM, agency_id, agency_id, adoption.next_after))


async def on_catalog_after_grace_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Open for the term the features that waited for the end of a grace, by adopting the current version again."""
    agency_id, at = due[0].agency_id, due[0].due_at
    pool = await pools.find_pool(uow.connection, agency_id)
    if pool is None or pool.is_over or pool.ends_at <= at:
        return
    if await _waits_for(uow, (*OF_TRIALS, CATALOG_NEXT_TERM), due):
        return
    await _adopt_again(uow, pool, await catalogs.find_adoption(uow.connection, agency_id), at, after_grace=True)


async def _adopt_again(
    uow: UnitOfWork, pool: Pool, adoption: Adoption, at: datetime, *, after_grace: bool = False
) -> None:
    next_term = None
    if adoption.next_number is not None:
        version = await _find_catalog(uow, adoption.next_number)
        next_term = NextTerm(adoption.next_after or pool.ends_at, version)
    present = await _find_catalog(uow, adoption.number)
    await _adopt(uow, pool, present, at, after_grace=after_grace, next_term=next_term, new_from=uow.now)


async def _waits_for(uow: UnitOfWork, kinds: Sequence[str], due: Sequence[Deadline]) -> bool:
    """Whether a deadline of these kinds must be handled first; if so, reschedule what is due. Raises WaitsForParked."""
    await uow.flush()
    agency_id, at = due[0].agency_id, due[0].due_at
    earlier = await deadlines.find_due(uow.connection, agency_id, kinds, at)
    if earlier.waiting:
        deadlines.schedule(uow, due)  # after a further step of seats' trials
        return True
    if earlier.parked:
        raise WaitsForParked
    return False


async def extend_windows(uow: UnitOfWork, pool: Pool, adoption: Adoption, cause: str | None = None) -> bool:
    """Extend the windows that last as long as the term to the pool's new end. Returns whether any is longer now.

    The version that waits for the next term, or else the current one, decides which windows are extended.
    """
    version = await _find_catalog(uow, adoption.next_number or adoption.number)
    present = await windows.list_windows(uow.connection, pool.agency_id, pool.enrollment_id)
    features = [key for key, window in present.items() if window.renewed_by(version)]
    extensions = await windows.save_extensions(
        uow.connection, pool.agency_id, pool.enrollment_id, pool.ends_at, features
    )
    for extension in extensions:
        uow.publish(publishing.window_extended(extension), causation_id=cause)
    follows = [
        each.ends_at
        for key, each in present.items()
        if key in version.features and key not in features and each.renewable and not each.trial
    ]
    if follows:  # what comes after a window that is not extended
        deadlines.schedule_earlier(uow, Deadline(CATALOG_NEXT_TERM, pool.agency_id, pool.agency_id, min(follows)))
    return bool(extensions)


async def _find_catalog(uow: UnitOfWork, number: int) -> Catalog:
    return (await find_versions(uow.connection, {number}, packaged_catalog()))[number]


async def _adopt(
    uow: UnitOfWork,
    pool: Pool,
    catalog: Catalog,
    at: datetime,
    *,
    after_grace: bool = False,
    next_term: NextTerm | None = None,
    new_from: datetime | None = None,
) -> None:
    agency_id = pool.agency_id
    present = await windows.list_windows(uow.connection, agency_id, pool.enrollment_id)
    announced = await find_announced_ends(uow, present.values(), at)
    instants = at, *announced.values()
    if after_grace:
        catalog, present = follow_graces(catalog, present, max(instants))
    used = await windows.find_used_trials(uow.connection, agency_id, pool.starts_at, pool.zone)
    changes = list(adopt(pool, catalog, present, used, at, next_term, new_from, announced))
    spent = {change.after.feature: change.spent(pool.zone) for change in changes}
    await windows.save_windows(uow.connection, [change.after for change in changes], spent)
    for change in changes:
        await _reschedule(uow, change)
        _publish(uow, change)
    adopted = present | {change.after.feature: change.after for change in changes}
    ends = [each.ends_at for key, each in adopted.items() if key in catalog.features and not each.renewable]
    if ends:  # a trial may follow such a window before a renewed term ends
        follows_at = min((ends_at for ends_at in (*ends, pool.ends_at) if ends_at > at), default=pool.ends_at)
        deadlines.schedule_earlier(uow, Deadline(CATALOG_NEXT_TERM, agency_id, agency_id, follows_at))
    opens = [again for each in instants if (again := opens_after_grace(catalog, adopted, each)) is not None]
    if opens:
        deadlines.schedule(uow, [Deadline(CATALOG_AFTER_GRACE, agency_id, agency_id, min(opens))])
    if changes:  # even if no event reports them, such as a quota of the whole agency
        await pools.save_revision(uow.connection, agency_id)
        await publish_agency(uow, agency_id)
        await tell_uses(uow, agency_id)
    audit.record(
        uow,
        command="AdoptCatalog",
        agency_id=agency_id,
        subject=str(catalog.number),
        after={"features": [change.after.feature for change in changes]},
    )


async def _reschedule(uow: UnitOfWork, change: Change) -> None:
    """Move the deadlines of a window that has changed. What was published about it is not published again."""
    before, after = change.before, change.after
    if before is None or change.opens:
        replaced = [] if before is None else [before]
        cancel_trials(uow, replaced)
        cancel_seat_trials(uow, replaced)
        schedule_trials(uow, [after])
        await open_seat_trials(uow, [after], change.at)
    elif change.moves:
        reschedule_trial(uow, before, after)
        await go_on_with_seat_trials(uow, before, after, change.at)


def _publish(uow: UnitOfWork, change: Change) -> None:
    before, after, at = change.before, change.after, change.at
    if change.opens:
        uow.publish(publishing.window_opened(after), time=at)
    elif change.extends and before is not None:
        extension = Extension(after.agency_id, after.window_id, after.feature, before.ends_at, after.ends_at)
        uow.publish(publishing.window_extended(extension), time=at)
    if change.alters:
        uow.publish(publishing.window_changed(after), time=at)

"""Plans: what an agency's people would gain or lose with a version of the catalog, before it is published."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from muster_contracts.entitlements import AccessMode
from muster_entitlements.domain.catalog import WIDTH, Catalog, Quota
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.rollouts import Change, NextTerm, adopt, follow_graces, opens_after_grace
from muster_entitlements.domain.windows import Window
from muster_runtime.pacing import Pace

# Every version, by its number.
Versions = Mapping[int, Catalog]


@dataclass(frozen=True, slots=True)
class Effect:
    """Whether a version gives an agency's people more of a feature at some instant than without it, or less."""

    agency_id: str
    feature: str
    seats: int
    gains: bool
    loses: bool


@dataclass(frozen=True, slots=True)
class Waiting:
    """A version that waits for the next term, and when that term begins."""

    catalog: Catalog
    comes_at: datetime


@dataclass(frozen=True, slots=True)
class Level:
    """How much a seat can use a feature at an instant: the access, the length of its own trial, the quota."""

    width: int = 0
    trial: timedelta | None = None
    quota: Quota | None = None

    def exceeds(self, other: "Level") -> bool:
        """Whether it allows more: wider access or, if the access is the same, a longer trial or a higher quota.

        Quotas are compared only if they have the same scope and period.
        """
        if self.width != other.width:
            return self.width > other.width
        if other.trial is not None and (self.trial is None or self.trial > other.trial):
            return True
        if self.quota is None or other.quota is None:
            return False
        alike = (self.quota.per, self.quota.period) == (other.quota.per, other.quota.period)
        return alike and self.quota.limit > other.quota.limit


@dataclass(frozen=True, slots=True)
class Course:
    """The windows of an agency, and how they change over time under a version."""

    windows: Mapping[str, Window]
    changes: Mapping[str, list[Change]]
    """By feature, in order of time."""

    @classmethod
    async def of(
        cls,
        pool: Pool,
        catalog: Catalog,
        windows: Mapping[str, Window],
        used: Mapping[str, timedelta],
        now: datetime,
        waiting: Waiting | None = None,
    ) -> "Course":
        """The course of the windows if they adopt a version now. With the present version, it is the current course."""
        changes: dict[str, list[Change]] = {}
        async for change in adopt_as_time_goes_by(pool, catalog, windows, used, now, waiting):
            changes.setdefault(change.after.feature, []).append(change)
        return cls(windows, changes)

    def window(self, feature: str, at: datetime) -> Window | None:
        """The window that a feature has at an instant."""
        changes = reversed(self.changes.get(feature, []))
        return next((change.after for change in changes if change.at <= at), self.windows.get(feature))

    def instants(self, feature: str) -> set[datetime]:
        """The instants at which the access to a feature may change."""
        changes = self.changes.get(feature, [])
        windows = [self.windows.get(feature), *(change.after for change in changes)]
        of_windows = {at for w in windows if w is not None for at in (w.starts_at, w.ends_at, w.closes_at())}
        return of_windows | {change.at for change in changes}


async def adopt_as_time_goes_by(
    pool: Pool,
    catalog: Catalog,
    windows: Mapping[str, Window],
    used: Mapping[str, timedelta],
    now: datetime,
    waiting: Waiting | None = None,
) -> AsyncIterator[Change]:
    """The changes of `adopt`, and those that follow until the term ends.

    Once a grace is over, the version opens the feature for the term if only the grace prevented that. Once a window
    ends that no renewal extends, the version's trial of the feature follows. Once the waiting version's term begins,
    that version is adopted.
    """
    present, at = dict(windows), now
    next_term = NextTerm(waiting.comes_at, waiting.catalog) if waiting else None
    changes, pace = list(adopt(pool, catalog, present, used, now, next_term)), Pace()
    while True:
        for change in changes:
            yield change
        await pace.keep()
        present |= {change.after.feature: change.after for change in changes}
        after_grace, after_term = opens_after_grace(catalog, present, at), _trials_follow(catalog, present, at)
        comes_at = waiting.comes_at if waiting else None
        at = min(each for each in (after_grace, after_term, comes_at, pool.ends_at) if each is not None)
        if at >= pool.ends_at:
            return
        if waiting is not None and at == comes_at:
            catalog, waiting, next_term = waiting.catalog, None, None
            changes = list(adopt(pool, catalog, present, used, at))
        elif at == after_term:
            changes = list(adopt(pool, catalog, present, used, at, next_term))
        else:
            changes = list(adopt(pool, *_due_after_grace(catalog, present, at), used, at, next_term))


def _due_after_grace(
    catalog: Catalog, windows: Mapping[str, Window], at: datetime
) -> tuple[Catalog, dict[str, Window]]:
    """`follow_graces`, but only for the features that open at this instant: the others do not change now."""
    opens, in_graces = follow_graces(catalog, windows, at)
    due = {
        key: window for key, window in in_graces.items() if at in (opens.features[key].anchor_at, window.closes_at())
    }
    return Catalog(catalog.number, {key: opens.features[key] for key in due}), due


def _trials_follow(catalog: Catalog, windows: Mapping[str, Window], now: datetime) -> datetime | None:
    """When the next window ends that no renewal extends although the version has its feature; None: never."""
    ends = (each.ends_at for key, each in windows.items() if key in catalog.features and not each.renewable)
    return min((at for at in ends if at > now), default=None)


async def effects(
    pool: Pool,
    catalog: Catalog,
    present: Catalog,
    windows: Mapping[str, Window],
    used: Mapping[str, timedelta],
    now: datetime,
    versions: Versions,
    waiting: Waiting | None = None,
) -> list[Effect]:
    """The effects of adopting a version now, until the term ends.

    They are the differences from the `present` version and the one that waits, both of which this version replaces. If
    the pool is not renewed yet, the next term is taken to be as long as the current one, and within it, only features
    that the waiting version would change are compared.
    """
    renewed = _renew(pool, waiting.comes_at) if waiting else pool
    stays = await Course.of(renewed, present, windows, used, now, waiting)
    # Unless the agency is renewed already, windows that are wider than the version end with the current term.
    again = Waiting(catalog, waiting.comes_at) if waiting and renewed is not pool else None
    comes = await Course.of(renewed, catalog, windows, used, now, again)

    def ends_at(feature: str) -> datetime:
        changes = waiting is not None and _terms(waiting.catalog, feature) != _terms(present, feature)
        return renewed.ends_at if changes else pool.ends_at

    return await _differences(pool, stays, comes, now, versions, ends_at)


def _terms(catalog: Catalog, key: str) -> tuple[object, ...] | None:
    """Everything about a version's feature that can have an effect, so not its name or its notices, for example."""
    feature = catalog.features.get(key)
    if feature is None:
        return None
    quota = feature.stated_quota
    counts = (quota.limit, quota.per, quota.period) if quota else None
    window = feature.trial_days, feature.grace_days, feature.anchor, feature.anchor_at
    return feature.mode, feature.mode_after, *window, counts


async def next_term_effects(
    pool: Pool,
    catalog: Catalog,
    present: Catalog,
    windows: Mapping[str, Window],
    used: Mapping[str, timedelta],
    at: datetime,
    versions: Versions,
) -> list[Effect]:
    """The effects of a version that is adopted with the next term, which begins at an instant.

    `present` is the version that would be adopted then instead, and the windows are those of that instant. A pool that
    ends later is already renewed; otherwise, the next term is taken to be as long as the current one.
    """
    renewed = _renew(pool, at)
    stays, comes = [
        await Course.of(renewed, version, _renewed(windows, version, renewed.ends_at), used, at)
        for version in (present, catalog)
    ]
    return await _differences(renewed, stays, comes, at, versions, lambda _: renewed.ends_at)


async def windows_before(
    pool: Pool,
    present: Catalog,
    windows: Mapping[str, Window],
    used: Mapping[str, timedelta],
    now: datetime,
    at: datetime,
    waiting: Waiting | None = None,
) -> dict[str, Window]:
    """The windows just before an instant under the `present` version: one that is adopted then has no effect yet."""
    course = await Course.of(pool, present, windows, used, now, waiting)
    found = {key: course.window(key, at - timedelta.resolution) for key in windows.keys() | course.changes.keys()}
    return {key: window for key, window in found.items() if window is not None}


def _renew(pool: Pool, at: datetime) -> Pool:
    """The pool with another term as long as the current one; the pool itself if its term already goes beyond `at`."""
    return pool if at < pool.ends_at else replace(pool, ends_at=pool.ends_at + (pool.ends_at - pool.starts_at))


def _renewed(windows: Mapping[str, Window], catalog: Catalog, ends_at: datetime) -> dict[str, Window]:
    """The windows once the term lasts until `ends_at`: those that a renewal extends last as long."""
    lasting = {
        key: replace(window, ends_at=max(window.ends_at, ends_at))
        for key, window in windows.items()
        if window.renewed_by(catalog)
    }
    return dict(windows) | lasting


async def _differences(
    pool: Pool, stays: Course, comes: Course, now: datetime, versions: Versions, ends_at: Callable[[str], datetime]
) -> list[Effect]:
    found, pace = [], Pace()
    for feature in sorted(stays.windows.keys() | stays.changes.keys() | comes.changes.keys()):
        instants = {now} | stays.instants(feature) | comes.instants(feature)
        open_ = [
            tuple(_level(course.window(feature, at), at, versions, trial_over) for course in (stays, comes))
            for at in instants
            if now <= at < ends_at(feature)
            for trial_over in (False, True)
        ]
        gains, loses = any(new.exceeds(old) for old, new in open_), any(old.exceeds(new) for old, new in open_)
        if gains or loses:
            found.append(Effect(pool.agency_id, feature, pool.in_use, gains, loses))
        await pace.keep()
    return found


def _level(window: Window | None, at: datetime, versions: Versions, trial_over: bool) -> Level:
    """What a seat can use at an instant if its own trial begins then or, with `trial_over`, has ended."""
    if window is None:
        return Level()
    over = window.seat_trial is not None and (trial_over or at >= window.ends_at)
    access = window.access(at, at - window.seat_trial if over and window.seat_trial else None)
    if access is AccessMode.NONE:
        return Level()
    terms = versions[window.catalog_number].features[window.feature]
    quota = terms.stated_quota if access is AccessMode.QUOTA else None
    return Level(WIDTH[access], None if over else window.seat_trial, quota)

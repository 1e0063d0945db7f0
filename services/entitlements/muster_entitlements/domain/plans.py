"""What a version of the catalog would bring the people of an agency: shown by a plan, before it is published."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from muster_entitlements.domain.catalog import Catalog
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.rollouts import WIDTH, Change, adopt, follow_graces, opens_after_grace
from muster_entitlements.domain.windows import Window


@dataclass(frozen=True, slots=True)
class Effect:
    """What a version brings the people of an agency for a feature: at some instant more than now, or less."""

    agency_id: str
    feature: str
    seats: int
    gains: bool
    loses: bool


@dataclass(frozen=True, slots=True)
class Course:
    """The windows of an agency, and what a version makes of them as time goes by."""

    windows: Mapping[str, Window]
    changes: Mapping[str, list[Change]]
    """Of each feature, in order."""

    @classmethod
    def of(
        cls, pool: Pool, catalog: Catalog, windows: Mapping[str, Window], used: Mapping[str, timedelta], now: datetime
    ) -> "Course":
        """The course of windows that adopt a version now. Of the version that they have, that is the present course."""
        changes: dict[str, list[Change]] = {}
        for change in adopt_with_graces(pool, catalog, windows, used, now):
            changes.setdefault(change.after.feature, []).append(change)
        return cls(windows, changes)

    def window(self, feature: str, at: datetime) -> Window | None:
        """The window that a feature has at an instant."""
        changes = reversed(self.changes.get(feature, []))
        return next((change.after for change in changes if change.at <= at), self.windows.get(feature))

    def instants(self, feature: str) -> set[datetime]:
        """When the access to a feature may become another one."""
        changes = self.changes.get(feature, [])
        windows = [self.windows.get(feature), *(change.after for change in changes)]
        of_windows = {at for w in windows if w is not None for at in (w.starts_at, w.ends_at, w.closes_at())}
        return of_windows | {change.at for change in changes}


def adopt_with_graces(
    pool: Pool, catalog: Catalog, windows: Mapping[str, Window], used: Mapping[str, timedelta], now: datetime
) -> Iterator[Change]:
    """As `adopt`, and then what the version opens for the term as soon as the graces are over that kept it from it."""
    present, at = dict(windows), now
    changes = list(adopt(pool, catalog, present, used, now))
    while True:
        yield from changes
        present |= {change.after.feature: change.after for change in changes}
        again = opens_after_grace(catalog, present, at)
        if again is None or again >= pool.ends_at:
            return
        at = again
        changes = list(adopt(pool, *follow_graces(catalog, present, at), used, at))


def effects(
    pool: Pool,
    catalog: Catalog,
    present: Catalog,
    windows: Mapping[str, Window],
    used: Mapping[str, timedelta],
    now: datetime,
) -> Iterator[Effect]:
    """The effects of a version that is adopted now, compared with the `present` one, until the term ends."""
    stays, comes = (Course.of(pool, version, windows, used, now) for version in (present, catalog))
    return _differences(pool, stays, comes, now)


def next_term_effects(
    pool: Pool, catalog: Catalog, present: Catalog, windows: Mapping[str, Window], used: Mapping[str, timedelta]
) -> Iterator[Effect]:
    """The effects of a version that waits for the next term, if that is as long as the present one.

    `present` is the version that would be adopted then without it.
    """
    at, renewed = pool.ends_at, replace(pool, ends_at=pool.ends_at + (pool.ends_at - pool.starts_at))
    stays, comes = (
        Course.of(renewed, version, _renewed(windows, version, renewed.ends_at), used, at)
        for version in (present, catalog)
    )
    return _differences(renewed, stays, comes, at)


def _renewed(windows: Mapping[str, Window], catalog: Catalog, ends_at: datetime) -> dict[str, Window]:
    """The windows once the term is longer: those of what the version opens for the term are as long."""
    lasting = {
        key: replace(window, ends_at=max(window.ends_at, ends_at))
        for key, window in windows.items()
        if key in catalog.lasting and not window.trial and window.renewable
    }
    return dict(windows) | lasting


def _differences(pool: Pool, stays: Course, comes: Course, now: datetime) -> Iterator[Effect]:
    for feature in sorted(stays.windows.keys() | stays.changes.keys() | comes.changes.keys()):
        instants = {now} | stays.instants(feature) | comes.instants(feature)
        open_ = [
            (_level(stays.window(feature, at), at), _level(comes.window(feature, at), at))
            for at in instants
            if now <= at < pool.ends_at
        ]
        gains, loses = any(_is_more(new, old) for old, new in open_), any(_is_more(old, new) for old, new in open_)
        if gains or loses:
            yield Effect(pool.agency_id, feature, pool.in_use, gains, loses)


def _level(window: Window | None, at: datetime) -> tuple[int, int | None]:
    """How wide the access is, and how many uses it has where a window states that: in the quota that follows it."""
    if window is None:
        return 0, None
    follows = window.starts_at <= at and window.closes_at() <= at
    return WIDTH[window.access(at)], window.monthly_quota_after if follows else None


def _is_more(one: tuple[int, int | None], other: tuple[int, int | None]) -> bool:
    if one[0] != other[0] or one[1] is None or other[1] is None:
        return one[0] > other[0]
    return one[1] > other[1]

"""How a version of the catalog changes the windows of an agency that is already enrolled.

A window that has begun never gets shorter, and its access never gets narrower. What follows it is as the version says:
a renewal does not extend a window that is wider than the version. A trial that is over stays over. In a grace, narrower
access that the version opens for the term follows the grace.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from muster_contracts.entitlements import AccessMode, Anchor
from muster_entitlements.domain.catalog import WIDTH, Catalog, Feature
from muster_entitlements.domain.days import open_for
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.windows import Window
from muster_runtime.identifiers import new_id


@dataclass(frozen=True, slots=True)
class Change:
    """A feature's window before and after, and the instant of the change. `before` is None if there was no window."""

    before: Window | None
    after: Window
    at: datetime

    @property
    def opens(self) -> bool:
        """Whether a new window opens."""
        return self.before is None or self.before.window_id != self.after.window_id

    @property
    def extends(self) -> bool:
        """Whether the same window ends later."""
        return not self.opens and self.before is not None and self.after.ends_at > self.before.ends_at

    @property
    def alters(self) -> bool:
        """Whether the same window changes in another way that subscribers know of."""
        if self.before is None or self.opens:
            return False
        return _told(self.before) != _told(self.after) or self.after.ends_at < self.before.ends_at

    def spent(self, zone: ZoneInfo) -> timedelta:
        """How long the trial that the window replaces was open; that time counts as used."""
        if self.before is None or not self.before.trial or (self.after.trial and not self.opens):
            return timedelta()
        return open_for(self.before.starts_at, min(self.before.ends_at, self.at), zone)

    @property
    def moves(self) -> bool:
        """Whether the window's deadlines change."""
        return self.opens or self.before is None or _dates(self.before) != _dates(self.after)


@dataclass(frozen=True, slots=True)
class NextTerm:
    """When the next term begins, and the version that waits for it."""

    starts_at: datetime
    catalog: Catalog


def adopt(
    pool: Pool,
    catalog: Catalog,
    windows: Mapping[str, Window],
    used: Mapping[str, timedelta],
    now: datetime,
    next_term: NextTerm | None = None,
    new_from: datetime | None = None,
    announced: Mapping[str, datetime] | None = None,
) -> Iterator[Change]:
    """The changes of windows if the pool adopts a version at an instant. Adopting it again changes nothing.

    `used` is how long trials of each feature were open before the pool's term. A window that the version of `next_term`
    does not extend ends when that term begins, even if the pool is already renewed. No new feature opens once the term
    is over. When a late renewal arrives, the version is adopted again, and new features open at `new_from` if that is
    later than the instant. `announced` are the ends of trials and graces after the instant that subscribers know of:
    they stay, so the version reaches those windows only then.
    """
    announced = announced or {}
    for feature in catalog.features.values():
        window = windows.get(feature.key)
        if window is not None and window.gone and not window.ended_early:
            window = None
        reached_at = new_from if window is None else announced.get(feature.key)
        at = max(now, reached_at or now)
        if window is None and at >= pool.ends_at:
            continue
        open_ = window is not None and window.starts_at <= at < window.ends_at
        mode = _wider(window.mode, feature.mode) if window is not None and open_ else feature.mode
        of_seats = feature.anchor is Anchor.SEAT
        term = pool
        if next_term is not None and not next_term.catalog.extends(feature.key, mode, of_seats=of_seats):
            term = replace(pool, ends_at=next_term.starts_at)
        spent = used.get(feature.key, timedelta())
        if window is None or at >= window.ends_at:
            fresh = Window.open(new_id("win", at), feature, term, catalog.number, spent, at)
        elif at >= window.starts_at:
            fresh = Window.open(window.window_id, feature, term, catalog.number, spent, window.starts_at)
        else:
            opens_at = window.starts_at if window.anchor is Anchor.AGENCY else at  # a decision may have moved it
            fresh = Window.open(new_id("win", at), feature, term, catalog.number, spent, opens_at)
        after = fresh if window is None else _adopted(window, fresh, feature, term, at)
        if window is not None and after.mode is AccessMode.QUOTA and feature.stated_quota is None:
            after = replace(after, catalog_number=window.catalog_number)  # its quota stays with the access
        if after != windows.get(feature.key):
            yield Change(windows.get(feature.key), after, at)
    for key, window in windows.items():
        at = max(now, announced.get(key, now))
        if key not in catalog.features and (after := _retired(window, at)) != window:
            yield Change(window, after, at)


def _adopted(window: Window, fresh: Window, feature: Feature, pool: Pool, now: datetime) -> Window:
    follows = replace(
        window,
        mode_after=fresh.mode_after,
        monthly_quota_after=fresh.monthly_quota_after,
        catalog_number=fresh.catalog_number,
        ends_soon_days=fresh.ends_soon_days,
        grace_days=_grace_days(window, fresh, now),
    )
    of_seats = fresh.seat_days is not None
    lasts = not fresh.trial and (window.seat_days is not None or not of_seats)
    if now < window.starts_at:
        decided = window.trial and fresh.trial and (window.extended or window.ended_early or _leaves_program(window))
        same = (_told(window), _dates(window)) == (_told(fresh), _dates(fresh))
        return replace(follows, mode=fresh.mode, renewable=True) if decided or same else fresh
    if now >= window.ends_at:
        if window.trial and (fresh.trial or of_seats):
            return follows
        waits = now < window.closes_at() and (WIDTH[fresh.mode] < WIDTH[window.mode] or now < fresh.starts_at)
        if waits:
            mode = fresh.mode if fresh.starts_at <= window.closes_at() else AccessMode.NONE
            quota = feature.seat_quota if mode is AccessMode.QUOTA else None
            follows = replace(follows, mode_after=mode, monthly_quota_after=quota)
        if now >= pool.ends_at:  # a late renewal does not extend what becomes a trial, or narrower: that follows it
            renewable = lasts and (window.trial or not _stays_wider(window, fresh))
            return replace(follows, renewable=window.renewable and renewable)
        return follows if waits else fresh
    renewable = (window.trial or lasts) and not _stays_wider(window, fresh)
    keeps_end = _keeps_end(window, fresh) or not (window.trial or renewable)  # or the version follows at that end
    return replace(
        follows,
        mode=_wider(window.mode, fresh.mode),
        trial=window.trial and (fresh.trial or of_seats),
        ends_at=window.ends_at if keeps_end else max(window.ends_at, _ends_at(window, fresh)),
        seat_days=_seat_days(window, fresh),
        renewable=renewable,
    )


def _wider(one: AccessMode, other: AccessMode) -> AccessMode:
    return max(one, other, key=WIDTH.__getitem__)


def _stays_wider(window: Window, fresh: Window) -> bool:
    """Whether a window keeps wider access until it ends than the version opens for the term, which then follows it."""
    return not fresh.trial and fresh.seat_days is None and WIDTH[fresh.mode] < WIDTH[window.mode]


def opens_after_grace(catalog: Catalog, windows: Mapping[str, Window], now: datetime) -> datetime | None:
    """When to adopt a version again because a trial's grace keeps it from opening the feature now; None: never."""
    opens, in_graces = follow_graces(catalog, windows, now)
    return min(
        (
            at
            for key, window in in_graces.items()
            if now < window.closes_at()
            for at in (opens.features[key].anchor_at, window.closes_at())
            if at is not None and at > now
        ),
        default=None,
    )


def follow_graces(catalog: Catalog, windows: Mapping[str, Window], now: datetime) -> tuple[Catalog, dict[str, Window]]:
    """The features that a version opens for the term after their trials are over, and the windows of those trials.

    Only a trial's grace can delay that.
    """
    trials_over = {key: window for key, window in windows.items() if window.trial and window.ends_at <= now}
    opens = {key: each for key, each in catalog.features.items() if each.trial is None and key in trials_over}
    return Catalog(catalog.number, opens), {key: trials_over[key] for key in opens}


def _leaves_program(window: Window) -> bool:
    """Whether a decision has moved a program's window to a start that a newly opened window would not have."""
    return window.anchor is Anchor.PROGRAM and window.start_corrected


def _keeps_end(window: Window, fresh: Window) -> bool:
    """Whether a trial keeps its end: a decision ended it early and it stays a trial, or each seat gets its own."""
    return window.trial and ((window.ended_early and fresh.trial) or fresh.seat_days is not None)


def _ends_at(window: Window, fresh: Window) -> datetime:
    """The end as the version says. A trial that a decision moved before the program's start keeps that length."""
    begins_before = window.trial and _leaves_program(window) and window.starts_at < fresh.starts_at
    return fresh.ends_at - (fresh.starts_at - window.starts_at) if begins_before else fresh.ends_at


def _grace_days(window: Window, fresh: Window, now: datetime) -> int | None:
    """The grace as the version says. One that has begun, or of seats, gets no shorter; one that is over stays over."""
    if window.seat_days is None and (not window.trial or now < window.ends_at):
        return fresh.grace_days
    if window.seat_days is None and now >= window.closes_at():
        return window.grace_days
    return max(window.grace_days or 0, fresh.grace_days or 0) or None


def _seat_days(window: Window, fresh: Window) -> int | None:
    if window.seat_days is None or (fresh.seat_days is None and not fresh.trial):
        return None
    return max(window.seat_days, fresh.seat_days or 0)


def _retired(window: Window, now: datetime) -> Window:
    """The window of a feature that a version removes. It still belongs to the version that had the feature."""
    return replace(
        window,
        mode_after=AccessMode.NONE,
        monthly_quota_after=None,
        ends_at=window.starts_at if now < window.starts_at else window.ends_at,
        renewable=False,
    )


def _told(window: Window) -> tuple[object, ...]:
    return window.mode, window.starts_at, window.mode_after, window.monthly_quota_after


def _dates(window: Window) -> tuple[object, ...]:
    dates = window.starts_at, window.ends_at, window.trial, window.renewable
    return *dates, window.seat_days, window.ends_soon_days, window.grace_days

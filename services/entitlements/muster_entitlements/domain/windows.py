"""Feature windows: when a feature may be used, and how."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from muster_contracts.entitlements import AccessMode, Anchor
from muster_entitlements.domain.catalog import Catalog, Feature
from muster_entitlements.domain.days import DAY, end_of_day, end_of_day_later, later, open_for, to_end_of_day
from muster_entitlements.domain.pools import Pool, PoolState
from muster_entitlements.errors import WindowExtendedAlready, WindowOver, WindowWithoutTrial
from muster_runtime.errors import InvalidInput, rfc3339


@dataclass(frozen=True, slots=True)
class Window:
    """A feature is open in `mode` within [starts_at, ends_at), and in `mode_after` afterward.

    After a trial with `grace_days`, `mode` continues for that many days. With `seat_days`, the window lasts as long as
    the term. Each seat then has `mode` for `seat_days` plus the grace from its first activation, and `mode_after` after
    that.
    """

    window_id: str
    agency_id: str
    enrollment_id: str
    feature: str
    trial: bool
    mode: AccessMode
    starts_at: datetime
    ends_at: datetime
    mode_after: AccessMode
    monthly_quota_after: int | None
    catalog_number: int
    """The version of the catalog whose terms it follows."""
    renewable: bool = True
    """Whether a renewal extends it, if it lasts as long as the term."""
    anchor: Anchor = Anchor.AGENCY
    seat_days: int | None = None
    ends_soon_days: tuple[int, ...] = (14, 7, 1)
    grace_days: int | None = None
    extended: bool = False
    ended_early: bool = False
    start_corrected: bool = False
    revision: int = 1
    """Increases whenever the window is moved, or a version changes its access or its grace."""

    @classmethod
    def open(
        cls,
        window_id: str,
        feature: Feature,
        pool: Pool,
        catalog_number: int,
        used: timedelta = timedelta(),
        opens_at: datetime | None = None,
    ) -> "Window":
        """A new window for a feature of a catalog version, opened by a pool's term or at an instant within it.

        A trial is shorter by what earlier enrollments have `used` of it: a second enrollment starts no second trial. A
        trial anchored on the program ends at the same instant for all agencies that have enough of it left. In an
        agency with a time zone, a trial anchored on the agency ends at the end of a local day.
        """
        of_seats = feature.anchor is Anchor.SEAT
        opens_at = pool.starts_at if opens_at is None else min(max(opens_at, pool.starts_at), pool.ends_at)
        starts_at = max(feature.anchor_at or opens_at, opens_at)
        return cls(
            window_id=window_id,
            agency_id=pool.agency_id,
            enrollment_id=pool.enrollment_id,
            feature=feature.key,
            trial=feature.trial is not None and not of_seats,
            mode=feature.mode,
            starts_at=starts_at,
            ends_at=max(_end(feature, pool, starts_at, used), starts_at),
            mode_after=feature.mode_after,
            monthly_quota_after=feature.seat_quota_after,
            catalog_number=catalog_number,
            anchor=feature.anchor,
            seat_days=feature.trial_days if of_seats else None,
            ends_soon_days=feature.ends_soon_days,
            grace_days=feature.grace_days,
        )

    @property
    def lasts(self) -> bool:
        """Whether it is open at any instant: a trial that was used up before is empty."""
        return self.starts_at < self.ends_at

    @property
    def gone(self) -> bool:
        """Whether a version took the feature away before the window began."""
        return not self.renewable and not self.lasts

    @property
    def grace_ends_at(self) -> datetime | None:
        """The exclusive end of the grace after a trial; None without a grace, or if no trial was left."""
        if not self.trial or self.grace_days is None or not self.lasts:
            return None
        return self.ends_at + timedelta(days=self.grace_days)

    @property
    def seat_trial(self) -> timedelta | None:
        """How long a seat has `mode`; None unless the window is anchored on seats."""
        return timedelta(days=self.seat_days + (self.grace_days or 0)) if self.seat_days is not None else None

    @property
    def follows_term(self) -> bool:
        """Whether it lasts as long as the term, so that a renewal may extend it."""
        return self.renewable and not self.trial

    def renewed_by(self, catalog: Catalog) -> bool:
        """Whether a renewal extends it if the next term follows this version."""
        return self.follows_term and catalog.extends(self.feature, self.mode, of_seats=self.seat_days is not None)

    def access(self, now: datetime, began_at: datetime | None = None) -> AccessMode:
        """The access at an instant of a seat whose trial began at `began_at`, which is None if it has not begun."""
        if now < self.starts_at:
            return AccessMode.NONE
        return self.mode if now < self.closes_at(began_at) else self.mode_after

    def closes_at(self, began_at: datetime | None = None) -> datetime:
        """The instant from which `mode_after` applies."""
        if self.seat_trial is not None and began_at is not None:
            return max(min(began_at + self.seat_trial, self.ends_at), self.starts_at)
        return self.grace_ends_at or self.ends_at

    def seat_ends_at(self, began_at: datetime) -> datetime:
        """When a seat's trial that began at an instant ends: no later than the window, if no renewal extends that.

        Only for a window that is anchored on seats.
        """
        assert self.seat_trial is not None
        ends_at = began_at + self.seat_trial
        return ends_at if self.renewable else min(ends_at, self.ends_at)

    def seats_begun_until(self, at: datetime) -> datetime:
        """The latest instant at which a seat's trial can have begun if it has ended by another instant."""
        assert self.seat_trial is not None
        over = not self.renewable and self.ends_at <= at
        return self.ends_at - timedelta.resolution if over else at - self.seat_trial

    def notices(self) -> dict[int, datetime]:
        """The instants of the notices that the window ends soon, by the days left; none before it opens."""
        instants = {days: self.ends_at - timedelta(days=days) for days in self.ends_soon_days}
        return {days: instant for days, instant in instants.items() if instant >= self.starts_at}


@dataclass(frozen=True, slots=True)
class Extension:
    """A window that now ends later."""

    agency_id: str
    window_id: str
    feature: str
    previous_ends_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class End:
    """The end of a window in a request: an instant, or the last day in the agency's time zone."""

    at: datetime | None = None
    on: date | None = None

    def resolve(self, zone: ZoneInfo) -> datetime | None:
        """The exclusive end; None if the request names none."""
        return self.at if self.on is None else end_of_day(self.on, zone)


@dataclass(frozen=True, slots=True)
class Start:
    """The start of a window in a request: an instant, or the first day in the agency's time zone."""

    at: datetime | None = None
    on: date | None = None


def extend(window: Window, pool: Pool, now: datetime, end: End) -> Window:
    """The window with a later end. A window can be extended only once.

    Raises WindowWithoutTrial, WindowOver, WindowExtendedAlready, or InvalidInput.
    """
    _require_open_trial(window, pool, now)
    if window.extended:
        raise WindowExtendedAlready(window.window_id)
    ends_at = end.resolve(pool.zone)
    if ends_at is None or not window.ends_at < ends_at <= pool.ends_at:
        raise InvalidInput(
            "ends_at" if end.on is None else "ends_on",
            end.on or end.at,
            f"must be after the window's end, {rfc3339(window.ends_at)}, and not after the term's end, "
            f"{rfc3339(pool.ends_at)}",
        )
    return replace(window, ends_at=ends_at, extended=True, revision=window.revision + 1)


def end_early(window: Window, pool: Pool, now: datetime, end: End) -> Window:
    """The window with an earlier end, by default now. Raises WindowWithoutTrial, WindowOver, or InvalidInput."""
    _require_open_trial(window, pool, now)
    ends_at = end.resolve(pool.zone) or max(now, window.starts_at)
    if not max(now, window.starts_at) <= ends_at < window.ends_at:
        raise InvalidInput(
            "ends_at" if end.on is None else "ends_on",
            end.on or end.at,
            f"must be before the window's end, {rfc3339(window.ends_at)}, not before its start, and not in the past",
        )
    return replace(window, ends_at=ends_at, ended_early=True, revision=window.revision + 1)


def correct_start(window: Window, pool: Pool, now: datetime, start: Start) -> Window:
    """The window with another start and the same length.

    If it ended with a local day, its length is in whole days, and it ends with a day again. Raises WindowWithoutTrial,
    WindowOver, or InvalidInput.
    """
    _require_open_trial(window, pool, now)
    starts_at = start.at if start.on is None else end_of_day(start.on - DAY, pool.zone)
    if starts_at is None or not pool.starts_at <= starts_at < pool.ends_at or starts_at == window.starts_at:
        raise InvalidInput(
            "starts_at" if start.on is None else "starts_on",
            start.on or start.at,
            f"must differ from the current start and be within the term, from {rfc3339(pool.starts_at)} to "
            f"{rfc3339(pool.ends_at)}",
        )
    ends_at = window.ends_at + (starts_at - window.starts_at)
    if window.lasts and pool.time_zone and to_end_of_day(window.ends_at, pool.zone) == window.ends_at:
        length = open_for(window.starts_at, window.ends_at, pool.zone)  # includes the rounding up to the end of a day
        ends_at = end_of_day_later(starts_at, length // DAY * DAY or length, pool.zone)
    if ends_at <= now:
        raise InvalidInput(
            "starts_at" if start.on is None else "starts_on",
            start.on or start.at,
            f"must leave the window's end in the future: it would end at {rfc3339(ends_at)}; end the trial early "
            "instead",
        )
    return replace(window, starts_at=starts_at, ends_at=ends_at, start_corrected=True, revision=window.revision + 1)


def used_beyond(own: Mapping[str, timedelta], continued: Iterable[Mapping[str, timedelta]]) -> dict[str, timedelta]:
    """How much more of each feature's trial the continued agencies have used than the agency itself.

    The one that has used most counts, because their trials ran in parallel: none of their people gets a second trial.
    """
    more: dict[str, timedelta] = {}
    for used in continued:
        for feature, spent in used.items():
            beyond = spent - own.get(feature, timedelta())
            more[feature] = max(more.get(feature, timedelta()), beyond)
    return {feature: beyond for feature, beyond in more.items() if beyond}


def _require_open_trial(window: Window, pool: Pool, now: datetime) -> None:
    if not window.trial:
        raise WindowWithoutTrial(window.window_id, window.feature)
    over = window.ends_at <= now or window.gone
    if over or pool.state(now) in (PoolState.ENDED, PoolState.WITHDRAWN):
        raise WindowOver(window.window_id, window.ends_at)


def _end(feature: Feature, pool: Pool, starts_at: datetime, used: timedelta) -> datetime:
    if feature.trial is None or feature.anchor is Anchor.SEAT:
        return pool.ends_at
    left = max(feature.trial - used, timedelta())
    ends_at = later(starts_at, left, pool.zone)
    if feature.anchor_at is not None:
        for_all = feature.anchor_at + feature.trial
        return min(for_all, ends_at) if used else for_all
    return end_of_day_later(starts_at, left, pool.zone) if left and pool.time_zone else ends_at

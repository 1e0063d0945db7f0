"""A plan shows the effects of publishing: it is compared, day by day, with an agency's access under the versions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from muster_contracts.entitlements import AccessMode
from muster_entitlements.domain.catalog import WIDTH, Catalog, Feature
from muster_entitlements.domain.plans import Level, Waiting, effects, next_term_effects, windows_before
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.rollouts import NextTerm, adopt, follow_graces, opens_after_grace
from muster_entitlements.domain.windows import Window
from tests.unit.entitlements.test_plans import found, numbered
from tests.unit.entitlements.test_rollouts import catalog, feature, opened
from tests.unit.entitlements.test_windows_and_checks import END, POOL, START

DAY = timedelta(days=1)
TERM = END - START

# Everything begins and ends a multiple of this apart, so access is compared only on those days. A term has 73 steps.
STEP = 5 * DAY

NOW, NEXT_TERM, RENEWAL = "now", "next-term", "renewal"

KINDS: list[dict[str, Any] | None] = [
    None,  # the version does not have the feature
    {},
    {"mode": "none"},
    {"trial_days": 10},
    {"trial_days": 30, "grace_days": 20},
    {"trial_days": 60},
    {"trial_days": 10, "anchor": "seat"},
    {"trial_days": 40, "anchor": "seat", "quota": 5},
]
versions = st.tuples(*[st.sampled_from(KINDS)] * 2).map(
    lambda kinds: [feature(key, **kind) for key, kind in zip("ab", kinds, strict=True) if kind is not None]
)
days = st.integers(0, 80).map(lambda steps: START + steps * STEP) | st.integers(60, 80).map(lambda s: START + s * STEP)
histories = st.lists(st.tuples(days, st.sampled_from([NOW, NEXT_TERM, RENEWAL]), versions), max_size=4)


@dataclass(frozen=True, slots=True)
class Agency:
    """An agency as the handlers store it: its pool, its windows, its versions, and what is due."""

    pool: Pool
    windows: Mapping[str, Window]
    number: int
    published: Mapping[int, tuple[Catalog, datetime]]
    next_number: int | None = None
    next_after: datetime | None = None
    term_due: datetime | None = None
    grace_due: datetime | None = None
    used: Mapping[str, timedelta] = field(default_factory=dict)

    def catalog(self, number: int) -> Catalog:
        return self.published[number][0]

    def versions(self) -> dict[int, Catalog]:
        return numbered(*(version for version, _ in self.published.values()))

    def until(self, now: datetime) -> "Agency":
        """The agency after everything due by now was handled when it became due."""
        agency = self
        while due := [at for at in (agency.term_due, agency.grace_due) if at is not None and at <= now]:
            at = min(due)
            agency = agency._term_begins(at, now) if agency.term_due == at else agency._grace_ends(at)
        return agency

    def publish(self, rule: str, version: Catalog, now: datetime) -> "Agency":
        agency = replace(self, published={**self.published, version.number: (version, now)})
        if rule == NOW:
            agency = agency._adopt(version, now)
            return replace(agency, number=version.number, next_number=None, next_after=None)
        ends_at = agency.pool.ends_at
        waits = replace(agency, next_number=version.number, next_after=agency.next_after or ends_at)
        return waits._schedule(ends_at)._extend()

    def renew(self, now: datetime) -> "Agency":
        ended = self.pool.ends_at
        renewed = replace(self, pool=replace(self.pool, ends_at=ended + TERM))
        return (renewed._schedule(ended) if ended <= now else renewed)._extend()

    def _extend(self) -> "Agency":
        version, ends_at = self.catalog(self.next_number or self.number), self.pool.ends_at
        extended = {
            key: replace(window, ends_at=max(window.ends_at, ends_at))
            for key, window in self.windows.items()
            if window.renewed_by(version)
        }
        return replace(self, windows={**self.windows, **extended})

    def _schedule(self, at: datetime) -> "Agency":
        return replace(self, term_due=at if self.term_due is None else min(self.term_due, at))

    def _term_begins(self, at: datetime, now: datetime) -> "Agency":
        agency = replace(self, term_due=None)
        if agency.pool.ends_at <= at:
            return agency
        comes = agency.next_number is not None and agency.next_after is not None and agency.next_after <= at
        number = agency.next_number if comes and agency.next_number is not None else agency.number
        if agency.published[number][1] > at:
            return replace(agency, term_due=now)
        if comes:
            agency = agency._adopt(agency.catalog(number), at)
            return replace(agency, number=number, next_number=None, next_after=None)
        agency = agency._adopt(agency.catalog(number), at, new_from=now, again=True)
        return agency._schedule(agency.next_after) if agency.next_after and agency.next_after > at else agency

    def _grace_ends(self, at: datetime) -> "Agency":
        agency = replace(self, grace_due=None)
        if agency.pool.ends_at <= at:
            return agency
        return agency._adopt(agency.catalog(agency.number), at, again=True, after_grace=True)

    def _adopt(
        self, version: Catalog, at: datetime, *, again: bool = False, after_grace: bool = False, **more: Any
    ) -> "Agency":
        windows: Mapping[str, Window] = self.windows
        if after_grace:
            version, windows = follow_graces(version, windows, at)
        if again and self.next_number is not None:
            more["next_term"] = NextTerm(self.next_after or self.pool.ends_at, self.catalog(self.next_number))
        changes = list(adopt(self.pool, version, windows, self.used, at, **more))
        adopted = {**windows, **{change.after.feature: change.after for change in changes}}
        used = dict(self.used)
        for change in changes:
            key = change.after.feature
            used[key] = used.get(key, timedelta()) + change.spent(self.pool.zone)
        agency = replace(self, windows={**self.windows, **adopted}, used=used)
        ends = [each.ends_at for key, each in adopted.items() if key in version.features and not each.renewable]
        if ends:
            pool_ends = self.pool.ends_at
            agency = agency._schedule(min((end for end in (*ends, pool_ends) if end > at), default=pool_ends))
        grace = opens_after_grace(version, adopted, at)
        return agency if grace is None else replace(agency, grace_due=grace)


def lived(first: list[Feature], history: list[tuple[datetime, str, list[Feature]]]) -> Agency:
    """An agency after its history."""
    version = catalog(1, *first)
    agency = Agency(POOL, opened(version), 1, {1: (version, START)})
    for number, (now, kind, published) in enumerate(sorted(history, key=lambda each: each[0]), 2):
        agency = agency.until(now)
        if kind != RENEWAL:
            agency = agency.publish(kind, catalog(number, *published), now)
        elif agency.pool.ends_at - 60 * DAY <= now:
            agency = agency.renew(now).until(now)
    return agency


def levels(
    agency: Agency, since: datetime, until: datetime, renewed_at: datetime | None, versions: Mapping[int, Catalog]
) -> Iterator[dict[str, list[Level]]]:
    """Each day's levels: of a seat whose own trial begins then, and of one whose trial is over."""
    if renewed_at is not None and renewed_at <= since:
        agency, renewed_at = agency.until(renewed_at).renew(renewed_at), None
    at = since
    while at < until:
        agency = agency.until(at)
        if at == renewed_at:
            agency = agency.renew(at)
        yield {
            key: [level(window, at, versions, trial_over) for trial_over in (False, True)]
            for key, window in agency.windows.items()
        }
        at += STEP


def level(window: Window, at: datetime, versions: Mapping[int, Catalog], trial_over: bool) -> Level:
    trial = window.seat_trial
    own = trial if trial is not None and not trial_over and at < window.ends_at else None
    access = window.access(at, at - trial if trial is not None and own is None else None)
    if access is AccessMode.NONE:
        return Level()
    stated = versions[window.catalog_number].features[window.feature].stated_quota
    return Level(WIDTH[access], own, stated if access is AccessMode.QUOTA else None)


def differences(
    stays: Agency, comes: Agency, since: datetime, ends_at: Mapping[str, datetime], renewed_at: datetime | None
) -> set[tuple[str, bool, bool]]:
    until, versions = max(ends_at.values()), comes.versions()
    daily = list(zip(*(levels(each, since, until, renewed_at, versions) for each in (stays, comes)), strict=True))
    expected = set()
    for key in "ab":
        pairs = [
            (old, new)
            for day, (before, after) in enumerate(daily)
            if since + day * STEP < ends_at[key]
            for old, new in zip(before.get(key, [Level()] * 2), after.get(key, [Level()] * 2), strict=True)
        ]
        gains, loses = any(new.exceeds(old) for old, new in pairs), any(old.exceeds(new) for old, new in pairs)
        if gains or loses:
            expected.add((key, gains, loses))
    return expected


@settings(max_examples=300)
@given(versions, histories, versions, st.integers(0, 30))
async def test_a_plan_of_a_version_that_takes_effect_at_once_shows_its_effects(
    first: list[Feature], history: list[tuple[datetime, str, list[Feature]]], planned: list[Feature], steps: int
) -> None:
    """If a version waits for a term for which the agency is not renewed yet, the test renews the agency in time."""
    now = max([START, *(at for at, _, _ in history)]) + steps * STEP
    agency, version = lived(first, history).until(now), catalog(9, *planned)
    assume(now < agency.pool.ends_at)
    present, comes, renewed_at = agency.catalog(agency.number), agency.publish(NOW, version, now), None
    waiting, ends_at = None, dict.fromkeys("ab", agency.pool.ends_at)
    if agency.next_number is not None:
        comes_at, renewed_to = agency.next_after or agency.pool.ends_at, agency.pool.ends_at
        waiting = Waiting(agency.catalog(agency.next_number), comes_at)
        if comes_at == agency.pool.ends_at:
            renewed_at, renewed_to = max(now, comes_at - 30 * DAY), comes_at + TERM
        for key in "ab":
            if waiting.catalog.features.get(key) != present.features.get(key):
                ends_at[key] = renewed_to
    shown = effects(agency.pool, version, present, agency.windows, agency.used, now, comes.versions(), waiting)
    assert await found(shown) == differences(agency, comes, now, ends_at, renewed_at)


@settings(max_examples=300)
@given(versions, histories, versions, st.integers(0, 30))
async def test_a_plan_of_a_version_for_the_next_term_shows_its_effects(
    first: list[Feature], history: list[tuple[datetime, str, list[Feature]]], planned: list[Feature], steps: int
) -> None:
    now = max([START, *(at for at, _, _ in history)]) + steps * STEP
    agency, version = lived(first, history).until(now), catalog(9, *planned)
    assume(now < agency.pool.ends_at)
    present, waiting, at = agency.catalog(agency.number), None, agency.next_after or agency.pool.ends_at
    if agency.next_number is not None:
        waiting = Waiting(agency.catalog(agency.next_number), at)
    comes, renewed_at, renewed_to = agency.publish(NEXT_TERM, version, now), None, agency.pool.ends_at
    if at == agency.pool.ends_at:
        renewed_at, renewed_to = max(now, at - 30 * DAY), at + TERM
    then = await windows_before(agency.pool, present, agency.windows, agency.used, now, at, waiting)
    comes_next = waiting.catalog if waiting else present
    shown = next_term_effects(agency.pool, version, comes_next, then, agency.used, at, comes.versions())
    assert await found(shown) == differences(agency, comes, at, dict.fromkeys("ab", renewed_to), renewed_at)

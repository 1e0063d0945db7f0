"""What a plan shows of a version of the catalog: who would gain access, and who would lose it, until the term ends."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given

from muster_contracts.entitlements import AccessMode
from muster_entitlements.domain.catalog import Catalog, Feature
from muster_entitlements.domain.plans import Effect, adopt_with_graces, effects, next_term_effects
from muster_entitlements.domain.rollouts import adopt, follow_graces, opens_after_grace
from muster_entitlements.domain.windows import Window
from tests.unit.entitlements.test_rollouts import WIDTH, after, catalog, catalogs, feature, instants, opened
from tests.unit.entitlements.test_windows_and_checks import END, POOL, START

DAY = timedelta(days=1)

# How wide the access to a feature is, and how many uses its quota has.
Level = tuple[int, int]
NONE: Level = (0, 0)


def found(shown: Iterator[Effect]) -> set[tuple[str, bool, bool]]:
    return {(each.feature, each.gains, each.loses) for each in shown}


@given(catalogs, catalogs, instants)
def test_an_effect_is_what_the_access_at_each_instant_shows(
    first: list[Feature], second: list[Feature], now: datetime
) -> None:
    """The model looks at every day of the term."""
    present, version = catalog(1, *first), catalog(2, *second)
    windows = opened(present)
    expected = set()
    days = list(zip(daily(present, windows, now), daily(version, windows, now), strict=True))
    for key in "abc":
        pairs = [(stays.get(key, NONE), comes.get(key, NONE)) for stays, comes in days]
        gains, loses = any(old < new for old, new in pairs), any(old > new for old, new in pairs)
        if gains or loses:
            expected.add((key, gains, loses))
    assert found(effects(POOL, version, present, windows, {}, now)) == expected


def daily(version: Catalog, windows: Mapping[str, Window], now: datetime) -> Iterator[dict[str, Level]]:
    """The levels of each day from now on, where the deadlines are handled as they become due."""
    present, due = dict(windows), now if now < END else None
    changes = adopt(POOL, version, present, {}, now)
    for at in (max(now, START - 20 * DAY) + day * DAY for day in range(400)):
        while due is not None and due <= at < END:
            present = after(present, list(changes))
            due = opens_after_grace(version, present, due)
            if due is not None:
                changes = adopt(POOL, *follow_graces(version, present, due), {}, due)
        if at < END:
            yield {key: level(window, at) for key, window in present.items()}


def level(window: Window, at: datetime) -> Level:
    access = window.access(at)
    return WIDTH.index(access), (window.monthly_quota_after or 0) if access is AccessMode.QUOTA else 0


def test_what_opens_after_each_grace_is_shown() -> None:
    first = catalog(
        1, *(feature(key, trial_days=10, grace_days=days) for key, days in {"a": 20, "b": 40, "c": 20}.items())
    )
    opens: Any = {"anchor": "program", "anchor_at": (START + 60 * DAY).isoformat()}
    version = catalog(2, *(feature(key, **opens) for key in "ab"), feature("c", mode="none", **opens))
    windows, now = opened(first), START + 12 * DAY

    changes = list(adopt_with_graces(POOL, version, windows, {}, now))
    assert {(change.after.feature, change.at) for change in changes if change.opens} == {
        ("a", START + 30 * DAY),
        ("b", START + 50 * DAY),
        ("c", START + 30 * DAY),
    }
    assert found(effects(POOL, version, first, windows, {}, now)) == {("a", True, False), ("b", True, False)}


def test_what_the_present_version_opens_after_a_grace_is_no_gain_and_is_lost_without_it() -> None:
    opens: Any = {"anchor": "program", "anchor_at": (START + 60 * DAY).isoformat()}
    first, present = catalog(1, feature("a", 10, grace_days=20)), catalog(2, feature("a", **opens))
    now = START + 12 * DAY
    windows = after(opened(first), list(adopt(POOL, present, opened(first), {}, now)))
    trial, none = catalog(3, feature("a", 10)), catalog(3, feature("b", mode="none"))
    assert found(effects(POOL, replace(present, number=3), present, windows, {}, now + DAY)) == set()
    assert found(effects(POOL, trial, present, windows, {}, now + DAY)) == {("a", False, True)}
    assert found(effects(POOL, none, present, windows, {}, now + DAY)) == {("a", False, True)}


def test_a_feature_that_no_version_changes_is_not_shown() -> None:
    """In a grace that a quota follows, which the window states before it, and the version after it."""
    metered: Any = {"mode": "quota", "mode_after": "none", "quota": {"limit": 25}}
    version, now = catalog(2, Feature(key="a", name="a", **metered)), START + 12 * DAY
    windows = opened(catalog(1, feature("a", 10, grace_days=20)))
    windows = after(windows, list(adopt(POOL, version, windows, {}, now)))
    assert found(effects(POOL, replace(version, number=3), version, windows, {}, now)) == set()


def test_a_version_for_the_next_term_is_compared_with_what_the_present_one_makes_of_that_term() -> None:
    first = catalog(1, feature("a"), feature("b", 60, 25))
    version = catalog(2, feature("a", 30, 5), feature("b", 60, 50))
    windows = opened(first)
    assert found(next_term_effects(POOL, version, first, windows, {})) == {("a", False, True), ("b", True, False)}

    # What the present version made a trial ends with the term, and is one from then on.
    now = START + 100 * DAY
    windows = after(windows, list(adopt(POOL, version, windows, {}, now)))
    again = replace(version, number=3)
    assert found(next_term_effects(POOL, again, version, windows, {})) == set()
    longer = catalog(3, feature("a", 60, 5), feature("b", 60, 50))
    assert found(next_term_effects(POOL, longer, version, windows, {})) == {("a", True, False)}

"""What a plan shows about a catalog version: who would gain access, and who would lose it, until the term ends."""

from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given

from muster_contracts.entitlements import AccessMode, CatalogRule
from muster_entitlements.domain.catalog import Catalog, Feature, Quota, Version, VersionState
from muster_entitlements.domain.plans import (
    Effect,
    Waiting,
    adopt_as_time_goes_by,
    effects,
    next_term_effects,
    windows_before,
)
from muster_entitlements.domain.rollouts import adopt, follow_graces, opens_after_grace
from muster_entitlements.domain.windows import Window
from muster_entitlements.replies.catalog import CatalogPlanReply
from tests.unit.entitlements.test_rollouts import WIDTH, after, catalog, catalogs, feature, instants, opened
from tests.unit.entitlements.test_windows_and_checks import END, POOL, START

DAY = timedelta(days=1)

# How wide the access to a feature is, and how many uses its quota allows.
Level = tuple[int, int]
NONE: Level = (0, 0)


async def found(shown: Awaitable[list[Effect]]) -> set[tuple[str, bool, bool]]:
    return {(each.feature, each.gains, each.loses) for each in await shown}


def numbered(*versions: Catalog) -> dict[int, Catalog]:
    return {version.number: version for version in versions}


@given(catalogs, catalogs, instants)
async def test_effects_match_the_access_at_each_instant(
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
    assert await found(effects(POOL, version, present, windows, {}, now, numbered(present, version))) == expected


def daily(version: Catalog, windows: Mapping[str, Window], now: datetime) -> Iterator[dict[str, Level]]:
    """Each day's levels from now on, if deadlines are handled when they become due."""
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


async def test_what_opens_after_each_grace_is_shown() -> None:
    first = catalog(
        1, *(feature(key, trial_days=10, grace_days=days) for key, days in {"a": 20, "b": 40, "c": 20}.items())
    )
    opens: Any = {"anchor": "program", "anchor_at": (START + 60 * DAY).isoformat()}
    version = catalog(2, *(feature(key, **opens) for key in "ab"), feature("c", mode="none", **opens))
    windows, now = opened(first), START + 12 * DAY

    changes = [each async for each in adopt_as_time_goes_by(POOL, version, windows, {}, now)]
    assert {(change.after.feature, change.at) for change in changes if change.opens} == {
        ("a", START + 30 * DAY),
        ("b", START + 50 * DAY),
        ("c", START + 30 * DAY),
    }
    assert await found(effects(POOL, version, first, windows, {}, now, numbered(first, version))) == {
        ("a", True, False),
        ("b", True, False),
    }


async def test_a_window_that_the_present_version_opens_after_a_grace_is_no_gain_and_can_be_lost() -> None:
    opens: Any = {"anchor": "program", "anchor_at": (START + 60 * DAY).isoformat()}
    first, present = catalog(1, feature("a", 10, grace_days=20)), catalog(2, feature("a", **opens))
    now = START + 12 * DAY
    windows = after(opened(first), list(adopt(POOL, present, opened(first), {}, now)))
    trial, none = catalog(3, feature("a", 10)), catalog(3, feature("b", mode="none"))
    again = replace(present, number=3)
    for version, expected in ((again, set()), (trial, {("a", False, True)}), (none, {("a", False, True)})):
        versions = numbered(first, present, version)
        assert await found(effects(POOL, version, present, windows, {}, now + DAY, versions)) == expected


async def test_a_feature_that_no_version_changes_is_not_shown() -> None:
    """In a grace that a quota follows, which the window states before it, and the version after it."""
    metered: Any = {"mode": "quota", "mode_after": "none", "quota": {"limit": 25}}
    version, now = catalog(2, Feature(key="a", name="a", **metered)), START + 12 * DAY
    first, again = catalog(1, feature("a", 10, grace_days=20)), replace(version, number=3)
    windows = after(opened(first), list(adopt(POOL, version, opened(first), {}, now)))
    assert await found(effects(POOL, again, version, windows, {}, now, numbered(first, version, again))) == set()


async def test_a_version_for_the_next_term_is_compared_with_that_term_under_the_present_version() -> None:
    first = catalog(1, feature("a"), feature("b", 60, 25))
    version = catalog(2, feature("a", 30, 5), feature("b", 60, 50))
    windows = opened(first)
    versions = numbered(first, version)
    assert await found(next_term_effects(POOL, version, first, windows, {}, END, versions)) == {
        ("a", False, True),
        ("b", True, False),
    }

    # What the current version turned into a trial ends with the term, and the trial begins then.
    now = START + 100 * DAY
    windows = after(windows, list(adopt(POOL, version, windows, {}, now)))
    again = replace(version, number=3)
    assert await found(next_term_effects(POOL, again, version, windows, {}, END, versions | numbered(again))) == set()
    longer = catalog(3, feature("a", 60, 5), feature("b", 60, 50))
    shown = next_term_effects(POOL, longer, version, windows, {}, END, versions | numbered(longer))
    assert await found(shown) == {("a", True, False)}


async def test_a_version_replaces_one_that_waits_for_the_next_term() -> None:
    """The agency is renewed; what the waiting version lacks is not open in the next term, so it cannot be lost."""
    renewed, now = replace(POOL, ends_at=END + 365 * DAY), START + 300 * DAY
    first, waiting = catalog(1, feature("a"), feature("b")), catalog(2, feature("b"), feature("c", 30))
    windows = opened(first)
    windows["b"] = replace(windows["b"], ends_at=renewed.ends_at)
    for features, expected in (
        ([feature("b")], {("c", False, True)}),
        ([feature("b"), feature("c", 30)], {("c", True, True)}),  # earlier
        ([feature("a"), feature("b")], {("a", True, False), ("c", False, True)}),
    ):
        version = catalog(3, *features)
        versions = numbered(first, waiting, version)
        shown = effects(renewed, version, first, windows, {}, now, versions, Waiting(waiting, END))
        assert await found(shown) == expected
    only = catalog(3, feature("b"))
    of_term = next_term_effects(renewed, only, waiting, windows, {}, END, numbered(first, waiting, only))
    assert await found(of_term) == {("c", False, True)}


@pytest.mark.parametrize("modes", [("quota", "none"), ("unlimited", "quota")])
@pytest.mark.parametrize("per", ["seat", "agency"])
async def test_another_quota_is_shown(modes: tuple[str, str], per: str) -> None:
    def metered(number: int, limit: int, per: str = per) -> Catalog:
        mode, mode_after = modes
        lasts: Any = {"trial_days": 10} if mode == "unlimited" else {}
        quota: Any = {"mode": mode, "mode_after": mode_after, "quota": {"limit": limit, "per": per}}
        return catalog(number, Feature(key="a", name="a", **quota, **lasts))

    first = metered(1, 100)
    for version, expected in (
        (metered(2, 5), {("a", False, True)}),
        (metered(2, 200), {("a", True, False)}),
        (metered(2, 100), set()),
        (metered(2, 5, {"seat": "agency", "agency": "seat"}[per]), set()),  # it counts another use
    ):
        shown = effects(POOL, version, first, opened(first), {}, START + DAY, numbered(first, version))
        assert await found(shown) == expected


async def test_a_longer_trial_of_each_seat_and_what_follows_it_are_shown() -> None:
    def of_seats(number: int, days: int, quota: int) -> Catalog:
        return catalog(number, feature("a", days, quota, anchor="seat"))

    first, now = of_seats(1, 30, 25), START + 40 * DAY
    for version, expected in (
        (of_seats(2, 60, 25), {("a", True, False)}),
        (of_seats(2, 10, 25), set()),  # no trial gets shorter
        (of_seats(2, 30, 20), {("a", False, True)}),
        (of_seats(2, 60, 20), {("a", True, True)}),
        (catalog(2, feature("a", None)), {("a", True, False)}),
    ):
        shown = effects(POOL, version, first, opened(first), {}, now, numbered(first, version))
        assert await found(shown) == expected


async def test_a_feature_that_only_the_agencys_own_version_has_is_shown() -> None:
    own, newest = catalog(1, feature("a"), feature("x", 10, 25)), [feature("a")]
    version = catalog(3, *newest, feature("b"))
    shown = await effects(POOL, version, own, opened(own), {}, START + 40 * DAY, numbered(own, version))
    present = Version(2, VersionState.PUBLISHED, CatalogRule.NEW_AGENCIES, tuple(newest), 1, None, None)
    reply = CatalogPlanReply.of(CatalogRule.NOW, present, version.features.values(), 1, shown, [])
    assert {each.feature: (each.gaining, each.losing, each.removed) for each in reply.features} == {
        "b": (["NASA"], [], False),
        "x": ([], ["NASA"], True),
    }


@pytest.mark.parametrize("late", [False, True])
async def test_what_a_waiting_version_brings_is_lost_even_if_the_agency_is_not_renewed_yet(late: bool) -> None:
    """A plan assumes the renewal that would begin its term, even a late one, after the current term."""
    first, waiting = catalog(1, feature("a"), feature("b")), catalog(2, feature("b"), feature("c", 30))
    now = END + 5 * DAY if late else START + 300 * DAY
    for features, expected in (
        ([feature("b")], {("c", False, True)}),
        ([feature("b"), feature("c", 30)], set() if late else {("c", True, True)}),  # earlier
        ([feature("a"), feature("b")], {("a", True, False), ("c", False, True)}),
    ):
        version = catalog(3, *features)
        versions = numbered(first, waiting, version)
        shown = effects(POOL, version, first, opened(first), {}, now, versions, Waiting(waiting, max(END, now)))
        assert await found(shown) == expected


@pytest.mark.parametrize("day", [300, 370])
@pytest.mark.parametrize(
    "kept",
    [
        {},
        {"name": "Another name", "value": 5, "ends_soon_days": (7,)},
        {"monthly_quota_after": None, "quota": Quota(limit=5, report_only=True, thresholds=(100,))},
    ],
)
async def test_features_that_a_waiting_version_leaves_alone_have_the_effects_that_they_have_without_it(
    day: int, kept: dict[str, Any]
) -> None:
    """So a plan never shows, for one agency alone, a loss or gain that others have as well."""
    k = feature("k", None, 5)
    first, waiting = catalog(1, feature("a"), k), catalog(2, feature("a", 30), k.model_copy(update=kept))
    version, now = catalog(3, feature("a", 30), feature("n")), START + day * DAY
    versions = numbered(first, waiting, version)
    of_all = [
        {each for each in await found(shown) if each[0] != "a"}
        for shown in (
            effects(POOL, version, first, opened(first), {}, now, versions),
            effects(POOL, version, first, opened(first), {}, now, versions, Waiting(waiting, max(END, now))),
        )
    ]
    assert of_all == [{("n", True, False)} if now < END else set()] * 2


async def test_a_trial_that_begins_with_the_renewed_term_is_shown() -> None:
    """The current version turned a window that was open for the term into a trial, which begins when the term ends."""
    first, present = catalog(1, feature("a"), feature("b")), catalog(2, feature("a", 30), feature("b"))
    now, renewed = START + 100 * DAY, replace(POOL, ends_at=END + 365 * DAY)
    windows = after(opened(first), list(adopt(POOL, present, opened(first), {}, now)))
    windows["b"] = replace(windows["b"], ends_at=renewed.ends_at)
    for features, expected in (
        ([feature("b")], {("a", False, True)}),
        ([feature("a", 30), feature("b")], set()),
        ([feature("a", 60), feature("b")], {("a", True, False)}),
        ([feature("a"), feature("b")], {("a", True, False)}),
    ):
        version = catalog(3, *features)
        versions = numbered(first, present, version)
        assert await found(effects(renewed, version, present, windows, {}, now + DAY, versions)) == expected


async def test_what_ends_before_a_version_arrives_with_a_later_term_is_not_lost_by_it() -> None:
    """The trial that follows the current term is over by then."""
    first, present, version = (
        catalog(1, feature("a")),
        catalog(2, feature("a", 30)),
        catalog(3, feature("b", mode="none")),
    )
    now, renewed = END - 30 * DAY, replace(POOL, ends_at=END + 365 * DAY)
    windows = after(opened(first), list(adopt(POOL, present, opened(first), {}, START + DAY)))
    then = await windows_before(renewed, present, windows, {}, now, renewed.ends_at)
    assert (then["a"].starts_at, then["a"].ends_at) == (END, END + 30 * DAY)
    versions = numbered(first, present, version)
    assert await found(next_term_effects(renewed, version, present, then, {}, renewed.ends_at, versions)) == set()

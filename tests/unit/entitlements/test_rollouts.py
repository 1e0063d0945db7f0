"""How a catalog version changes windows: none that has begun is lost, and a second adoption changes nothing."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from muster_contracts.entitlements import AccessMode
from muster_entitlements.domain.catalog import Catalog, Feature, Quota
from muster_entitlements.domain.meters import Meter
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.rollouts import Change, adopt, opens_after_grace
from muster_entitlements.domain.windows import End, Start, Window, correct_start, end_early, extend
from tests.unit.entitlements.test_windows_and_checks import END, POOL, START

DAY = timedelta(days=1)
WIDTH = [AccessMode.NONE, AccessMode.QUOTA, AccessMode.UNLIMITED]


def feature(key: str = "a", trial_days: int | None = None, quota: int | None = None, **more: Any) -> Feature:
    after = {"mode_after": "none"} if quota is None else {"mode_after": "quota", "monthly_quota_after": quota}
    return Feature.model_validate(
        {"key": key, "name": key, "mode": "unlimited", "trial_days": trial_days, **after, **more}
    )


def catalog(number: int, *features: Feature) -> Catalog:
    return Catalog(number, {each.key: each for each in features})


def opened(version: Catalog, pool: Pool = POOL) -> dict[str, Window]:
    return {key: Window.open(f"win_{key}", each, pool, version.number) for key, each in version.features.items()}


def after(windows: dict[str, Window], changes: list[Change]) -> dict[str, Window]:
    return windows | {change.after.feature: change.after for change in changes}


modes: Any = st.sampled_from([{"mode": "unlimited"}, {"mode": "none"}])
features = st.builds(
    lambda key, days, quota, mode, grace: feature(key, days, quota, **mode, grace_days=grace if days else None),
    st.sampled_from("abc"),
    st.none() | st.integers(1, 400),
    st.none() | st.integers(0, 50),
    modes,
    st.none() | st.integers(1, 100),
)
catalogs = st.lists(features, max_size=3, unique_by=lambda each: each.key)
instants = st.integers(-10, 380).map(lambda days: START + days * DAY)


@example(  # a trial's grace that goes on when the term is over
    publications=[([feature("b", None, 0, mode="none")], END)], first=[feature("b", 266, None, grace_days=100)]
)
@given(st.lists(st.tuples(catalogs, instants), min_size=1, max_size=4), catalogs)
def test_no_window_that_has_begun_gets_shorter_or_narrower(
    publications: list[tuple[list[Feature], datetime]], first: list[Feature]
) -> None:
    windows = opened(catalog(1, *first))
    for number, (published, now) in enumerate(sorted(publications, key=lambda each: each[1]), 2):
        version = catalog(number, *published)
        changed = after(windows, list(adopt(POOL, version, windows, {}, now)))
        for key, window in windows.items():
            if window.starts_at <= now < window.ends_at:
                kept = changed[key]
                assert (kept.window_id, kept.starts_at) == (window.window_id, window.starts_at)
                assert kept.ends_at >= window.ends_at
                assert WIDTH.index(kept.mode) >= WIDTH.index(window.mode)
            elif window.trial and window.ends_at <= now and changed[key].window_id == window.window_id:
                # A current grace continues; one that is over, or never existed, does not come back.
                going_on = now < window.closes_at()
                assert changed[key].closes_at() >= window.closes_at()
                assert going_on or changed[key].closes_at() == window.closes_at()
        for window in changed.values():
            assert window.starts_at <= window.ends_at
        for key, each in version.features.items():
            if now >= END and key not in windows:
                assert key not in changed  # nothing opens once the term is over
                continue
            lasts = each.trial_days is None and key in windows and in_grace(windows[key], now)
            narrower = lasts and WIDTH.index(each.mode) < WIDTH.index(windows[key].mode)
            stated = (each.mode, None) if narrower else (each.mode_after, each.monthly_quota_after)
            assert (changed[key].mode_after, changed[key].monthly_quota_after) == stated
        assert list(adopt(POOL, version, changed, {}, now)) == []
        windows = changed


def in_grace(window: Window, now: datetime) -> bool:
    return window.trial and window.ends_at <= now < window.closes_at()


@pytest.mark.parametrize(
    ("first", "second", "day", "ends", "mode_after", "quota", "told"),
    [
        (feature("a", 60, 25), feature("a", 90, 25), 10, 90, "quota", 25, "extends"),
        (feature("a", 60, 25), feature("a", 30, 25), 10, 60, "quota", 25, ""),
        (feature("a", 60, 25), feature("a", 60, 50), 10, 60, "quota", 50, "alters"),
        (feature("a", 60, 25), feature("a", 90, 50), 70, 60, "quota", 50, "alters"),  # over stays over
        (feature("a", 60, 25), feature("a", 30, 25, anchor="seat"), 70, 60, "quota", 25, ""),
        (feature("a", 60, 25), feature("a", None), 10, 365, "none", None, "extends alters"),
        (feature("a", 60, 25), feature("a", None), 70, 365, "none", None, "opens"),
        (feature("a", None), feature("a", 60, 25), 10, 365, "quota", 25, "alters"),
        (feature("a", 60, 25), feature("b"), 10, 60, "none", None, "alters"),
        (feature("a", 60, 25), feature("a", 30, 25), -5, 30, "quota", 25, "opens"),  # it had not begun
    ],
)
def test_a_version_extends_alters_or_opens_a_window(
    first: Feature, second: Feature, day: int, ends: int, mode_after: str, quota: int | None, told: str
) -> None:
    changes = list(adopt(POOL, catalog(2, second), opened(catalog(1, first)), {}, START + day * DAY))
    [change] = [each for each in changes if each.after.feature == "a"]
    assert (change.after.ends_at - START, change.after.mode_after, change.after.monthly_quota_after) == (
        ends * DAY,
        mode_after,
        quota,
    )
    assert [name for name in ("opens", "extends", "alters") if getattr(change, name)] == told.split()


@pytest.mark.parametrize(
    "second",
    [{"mode": "none", "mode_after": "none"}, {"mode": "none", "mode_after": "unlimited"}, {"mode": "none", "value": 5}],
)
@pytest.mark.parametrize(("trial_days", "day"), [(None, 10), (60, 10), (60, 65)])
def test_access_within_a_quota_is_kept_with_the_quota(second: dict[str, Any], trial_days: int | None, day: int) -> None:
    lasts = {"trial_days": trial_days, "grace_days": 10 if trial_days else None}

    def metered(limit: int) -> Feature:
        stated = {"mode": "quota", "mode_after": "none", "quota": {"limit": limit}}
        return Feature.model_validate({"key": "a", "name": "a", **lasts, **stated})

    versions = {1: catalog(1, metered(3)), 2: catalog(2, feature("a", **lasts, **second))}
    versions[3] = catalog(3, metered(4))
    windows, now = opened(versions[1]), START + day * DAY
    for number, limit in ((2, 3), (3, 4), (2, 4)):
        windows = after(windows, list(adopt(POOL, versions[number], windows, {}, now)))
        followed = versions[windows["a"].catalog_number].features["a"]
        assert windows["a"].access(now) is AccessMode.QUOTA
        assert Meter(POOL.zone, windows, {}).at(followed, now).quota == Quota(limit=limit)
    opens = catalog(4, feature("a", **lasts))
    assert after(windows, list(adopt(POOL, opens, windows, {}, START + DAY)))["a"].catalog_number == 4


@pytest.mark.parametrize(("mode", "quota"), [("quota", {"quota": {"limit": 3}}), ("none", {})])
def test_a_grace_runs_to_its_end_if_a_trial_becomes_open_for_the_term(mode: str, quota: dict[str, Any]) -> None:
    second = Feature.model_validate({"key": "a", "name": "a", "mode": mode, "mode_after": "none", **quota})
    windows = opened(catalog(1, feature(trial_days=10, grace_days=20)))
    grace_ends = START + 30 * DAY

    kept = adopted(second, windows["a"], START + 12 * DAY)
    assert [kept.access(at) for at in (grace_ends - DAY, grace_ends, END - DAY)] == ["unlimited", mode, mode]
    assert kept.monthly_quota_after == (3 if quota else None)
    assert Meter(POOL.zone, {"a": kept}, {}).at(second, grace_ends).quota == second.stated_quota
    assert opens_after_grace(catalog(2, second), {"a": kept}, START + 12 * DAY) == grace_ends
    opens = adopted(second, kept, grace_ends)
    assert (opens.access(grace_ends), opens.starts_at, opens.ends_at) == (mode, grace_ends, END)
    assert opens_after_grace(catalog(2, second), {"a": opens}, grace_ends) is None
    assert adopted(second, opens, grace_ends + 10 * DAY) == opens


@pytest.mark.parametrize("mode", ["unlimited", "none"])
@pytest.mark.parametrize(("day", "adopted_on"), [(20, (12, 20)), (60, (12, 30))])
def test_a_grace_runs_to_its_end_if_the_program_opens_the_feature_later(
    mode: str, day: int, adopted_on: tuple[int, int]
) -> None:
    later = feature(mode=mode, anchor="program", anchor_at=(START + day * DAY).isoformat())
    window = opened(catalog(1, feature(trial_days=10, grace_days=20)))["a"]
    accesses = []
    for now in range(12, 365):
        if now in adopted_on or now == 30:
            window = adopted(later, window, START + now * DAY)
            again = opens_after_grace(catalog(2, later), {"a": window}, START + now * DAY)
            if again is not None:
                assert again == START + (adopted_on[1] if now == 12 else 30) * DAY
        accesses.append(window.access(START + now * DAY))
    expected = ["unlimited" if now < 30 else mode if now >= day else "none" for now in range(12, 365)]
    assert accesses == expected


def adopted(version: Feature, window: Window, now: datetime) -> Window:
    return after({"a": window}, list(adopt(POOL, catalog(2, version), {"a": window}, {}, now)))["a"]


def test_a_seats_trial_and_its_grace_together_never_get_shorter() -> None:
    seats: dict[str, Any] = {"anchor": "seat", "trial_days": 30, "grace_days": 10}
    windows = opened(catalog(1, feature("a", **seats)))
    for days, grace, whole in ((30, None, 40), (20, 5, 40), (50, None, 60), (30, 20, 50)):
        version = catalog(2, feature("a", **{**seats, "trial_days": days, "grace_days": grace}))
        changed = after(windows, list(adopt(POOL, version, windows, {}, START + DAY)))["a"]
        assert changed.seat_trial == whole * DAY


@pytest.mark.parametrize("trial_days", [60, 90])
def test_decisions_about_a_trial_that_has_not_begun_stay(trial_days: int) -> None:
    now, begins = START + 5 * DAY, START + 10 * DAY
    window = opened(catalog(1, feature("a", 60, 25)))["a"]
    version = catalog(2, feature("a", trial_days, 25), feature("b"))

    def adopted(decided: Window) -> Window:
        return after({"a": decided}, list(adopt(POOL, version, {"a": decided}, {}, now)))["a"]

    moved = correct_start(window, POOL, now, Start(at=begins))
    found = adopted(moved)
    assert (found.starts_at, found.ends_at) == (begins, begins + trial_days * DAY)
    for decided in (
        end_early(moved, POOL, now, End()),
        end_early(moved, POOL, now, End(at=begins + DAY)),
        extend(moved, POOL, now, End(at=begins + 200 * DAY)),
    ):
        found = adopted(decided)
        assert (found.window_id, found.starts_at, found.ends_at) == (decided.window_id, begins, decided.ends_at)


def test_a_decided_trial_that_has_not_begun_gets_the_access_of_the_version() -> None:
    now = START - 5 * DAY
    stated = {"mode": "quota", "mode_after": "none", "quota": {"limit": 3}}
    metered = Feature.model_validate({"key": "a", "name": "a", "trial_days": 60, **stated})
    for first, second in ((feature("a", 60), metered), (metered, feature("a", 60))):
        window = opened(catalog(1, first))["a"]
        for decided in (extend(window, POOL, now, End(at=END)), end_early(window, POOL, now, End(at=START + DAY))):
            found = adopted(second, decided, now)
            assert (found.window_id, found.mode, found.ends_at) == ("win_a", second.mode, decided.ends_at)
            assert found.catalog_number == 2


@pytest.mark.parametrize("day", [-4, 10])
def test_a_trial_that_was_ended_before_it_began_stays_over_if_its_feature_comes_back(day: int) -> None:
    """Without that decision, the feature comes back with its whole trial."""
    now, comes = START - 5 * DAY, START + day * DAY
    window = opened(catalog(1, feature("a", 60)))["a"]
    for decided in (window, end_early(window, POOL, now, End()), end_early(window, POOL, now, End(at=START + DAY))):
        gone = after({"a": decided}, list(adopt(POOL, catalog(2), {"a": decided}, {}, now)))["a"]
        assert gone.gone
        back = adopted(feature("a", 60), gone, comes)
        assert back.ends_at - back.starts_at == (60 * DAY if decided is window else timedelta())
        assert adopted(feature("a", 60), back, comes + DAY) == back
        assert adopted(feature("a"), gone, comes).ends_at == END


@pytest.mark.parametrize("day", [15, 25])
def test_a_trial_that_was_ended_early_is_open_until_the_term_ends_once_it_is_not_a_trial(day: int) -> None:
    """This holds whether or not it is over by then."""
    window = opened(catalog(1, feature("a", 60)))["a"]
    ended = end_early(window, POOL, START + 10 * DAY, End(at=START + 20 * DAY))
    found = adopted(feature("a"), ended, START + day * DAY)
    assert (found.trial, found.renewable, found.ends_at) == (False, True, END)
    assert adopted(feature("a", 90), ended, START + day * DAY).ends_at == ended.ends_at


def test_a_feature_added_during_the_term_opens_then_with_what_is_left_of_its_trial() -> None:
    now = START + 100 * DAY
    [change] = adopt(POOL, catalog(2, feature("new", 60, 5)), {}, {"new": 20 * DAY}, now)
    assert (change.before, change.after.starts_at, change.after.ends_at) == (None, now, now + 40 * DAY)
    assert list(adopt(POOL, catalog(2), {}, {}, now)) == []


def test_with_the_next_term_a_whole_term_becomes_a_trial() -> None:
    windows = opened(catalog(1, feature("a"), feature("b", 60, 25)))
    version = catalog(2, feature("a", 30, 5), feature("b", 60, 50))
    at_end = replace(POOL, ends_at=END + 365 * DAY)
    changes = {change.after.feature: change.after for change in adopt(at_end, version, windows, {}, END)}
    assert (changes["a"].starts_at, changes["a"].ends_at, changes["a"].trial) == (END, END + 30 * DAY, True)
    assert (changes["b"].ends_at, changes["b"].monthly_quota_after) == (START + 60 * DAY, 50)
    assert datetime(2025, 8, 6, tzinfo=UTC) == START


def test_a_decided_start_of_a_programs_window_stays() -> None:
    program = feature("a", 60, 25, anchor="program", anchor_at="2025-08-10T00:00:00Z")
    window = opened(catalog(1, program))["a"]
    later = program.model_copy(update={"anchor_at": START + 20 * DAY})

    def adopted(before: Window, version: Catalog) -> Window:
        return after({"a": before}, list(adopt(POOL, version, {"a": before}, {}, START + DAY)))["a"]

    for begins in (START + 2 * DAY, START + 30 * DAY):
        moved = correct_start(window, POOL, START, Start(at=begins))
        for each in (program, later):
            found = adopted(moved, catalog(2, each, feature("b")))
            assert (found.starts_at, found.ends_at) == (begins, begins + 60 * DAY)
    # Without a decision, the program's instant counts, however often it has moved.
    assert adopted(adopted(window, catalog(2, later)), catalog(3, program)).starts_at == window.starts_at

"""What a catalog version opens within a term: when it starts, and when it ends."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from muster_contracts.entitlements import AccessMode
from muster_entitlements.domain.catalog import Feature, Quota
from muster_entitlements.domain.meters import Meter
from muster_entitlements.domain.quotas import Period
from muster_entitlements.domain.rollouts import NextTerm, adopt
from muster_entitlements.domain.windows import Start, Window, correct_start
from tests.unit.entitlements.test_rollouts import adopted, after, catalog, feature, opened
from tests.unit.entitlements.test_windows_and_checks import END, POOL, START

DAY = timedelta(days=1)


@pytest.mark.parametrize("day", [12, 50])
def test_a_programs_window_that_has_not_begun_becomes_a_trial_of_full_length(day: int) -> None:
    program: Any = {"anchor": "program", "anchor_at": (START + 100 * DAY).isoformat()}
    windows, now = opened(catalog(1, feature("a", **program))), START + day * DAY
    trial = catalog(2, feature("a", 30))
    found = after(windows, list(adopt(POOL, trial, windows, {}, now)))
    assert (found["a"].starts_at, found["a"].ends_at) == (now, now + 30 * DAY)
    assert list(adopt(POOL, trial, found, {}, now + DAY)) == []
    whole = after(windows, list(adopt(POOL, catalog(2, feature("a")), windows, {}, now)))["a"]
    assert (whole.starts_at, whole.ends_at) == (now, POOL.ends_at)


OF_SEATS = feature("a", 10, anchor="seat")


@pytest.mark.parametrize(
    ("present", "comes", "ends_at"),
    [
        (feature("a"), feature("a"), END + 365 * DAY),
        (feature("a"), feature("b"), END),
        (feature("a"), OF_SEATS, END),
        (OF_SEATS, feature("a", 20, anchor="seat"), END + 365 * DAY),
        (OF_SEATS, feature("a"), END + 365 * DAY),
    ],
)
def test_a_window_ends_with_the_present_term_unless_the_next_term_has_it_too(
    present: Feature, comes: Feature, ends_at: datetime
) -> None:
    """This holds even though the pool is already renewed."""
    renewed, now = replace(POOL, ends_at=END + 365 * DAY), START + 30 * DAY
    windows, waits = opened(catalog(1, feature("a", 10, grace_days=20))), NextTerm(END, catalog(3, comes))
    for before in (windows, {}) if present is not OF_SEATS else ({},):
        [change] = adopt(renewed, catalog(2, present), before, {}, now, waits)
        assert (change.after.starts_at, change.after.ends_at, change.after.renewable) == (now, ends_at, True)


def test_use_counts_in_one_period_whether_the_window_after_a_grace_has_opened_or_is_late() -> None:
    metered: Any = {"mode": "quota", "mode_after": "none", "quota": {"limit": 5, "period": "anchor"}}
    version, grace_ends = catalog(2, Feature(key="a", name="a", **metered)), START + 30 * DAY
    windows = opened(catalog(1, feature("a", 10, grace_days=20)))
    late = after(windows, list(adopt(POOL, version, windows, {}, START + 12 * DAY)))
    in_time = after(late, list(adopt(POOL, version, late, {}, grace_ends)))
    assert in_time["a"].window_id != late["a"].window_id
    for at in (grace_ends, grace_ends + 3 * DAY, grace_ends + 40 * DAY):
        periods = [Meter(POOL.zone, found, version.features).period("a", at) for found in (late, in_time)]
        assert periods[0] == periods[1]


def test_a_terms_end_cuts_a_period_only_if_no_renewal_extends_the_window() -> None:
    metered = feature("a").model_copy(update={"mode": AccessMode.QUOTA, "quota": Quota(limit=5)})
    window = opened(catalog(1, metered))["a"]
    renewed = replace(window, ends_at=END + 365 * DAY)
    not_extended = window, END + 365 * DAY  # the next term's version opens narrower access
    not_renewable = replace(window, renewable=False), END

    def periods(window: Window, term_ends_at: datetime) -> list[Period]:
        meter = Meter(POOL.zone, {"a": window}, {"a": metered}, term_ends_at=term_ends_at)
        return [meter.terms(metered, "sub_1", END + days * DAY).period for days in (-1, 1)]

    before, beyond = periods(window, END)
    assert before == beyond
    assert periods(renewed, renewed.ends_at) == [before] * 2
    cut = [replace(before, ends_at=END), replace(before, starts_at=END)]
    assert periods(*not_extended) == periods(*not_renewable) == cut
    meter = Meter(POOL.zone, {"a": window}, {"a": metered}, term_ends_at=END)
    assert [meter.terms(metered, "sub_1", END + days * DAY).quota is None for days in (-1, 1)] == [False, True]


@pytest.mark.parametrize(("day", "days"), [(5, 60), (20, 60), (20, 90)])
def test_a_programs_trial_that_was_moved_to_an_earlier_start_keeps_its_length(day: int, days: int) -> None:
    of_program = feature("a", 60, anchor="program", anchor_at=(START + 30 * DAY).isoformat())
    window = opened(catalog(1, of_program))["a"]
    moved = correct_start(window, POOL, START + DAY, Start(at=START + 10 * DAY))
    kept = adopted(of_program.model_copy(update={"trial_days": days}), moved, START + day * DAY)
    assert (kept.starts_at, kept.ends_at) == (START + 10 * DAY, START + (10 + days) * DAY)


def test_a_version_that_moves_a_programs_trial_does_not_count_as_a_decided_start() -> None:
    """Nor does an extension: windows that differ only in the revision have the same end."""
    windows = opened(catalog(1, feature("a", 60, anchor="program", anchor_at=START.isoformat())))
    longer, now = feature("a", 90, anchor="program", anchor_at=(START + 26 * DAY).isoformat()), START + 10 * DAY
    found = [adopted(longer, replace(windows["a"], revision=revision), now) for revision in (1, 2)]
    assert [each.ends_at for each in found] == [START + 116 * DAY] * 2


def test_features_of_a_version_that_arrived_after_the_term_open_with_the_late_renewal() -> None:
    """What was open before follows the term, as always; nothing opens after the renewed term."""
    renewed, at = replace(POOL, ends_at=END + 365 * DAY), END + 20 * DAY
    first, version = catalog(1, feature("a")), catalog(2, feature("a", 30), feature("n", 10), feature("m"))
    windows = after(opened(first), list(adopt(POOL, version, opened(first), {}, START + DAY)))
    del windows["n"], windows["m"]  # they were not opened, since the term was over
    changes = list(adopt(renewed, version, windows, {}, END, new_from=at))
    assert {(each.after.feature, each.at, each.after.starts_at, each.after.ends_at) for each in changes} == {
        ("a", END, END, END + 30 * DAY),
        ("n", at, at, at + 10 * DAY),
        ("m", at, at, renewed.ends_at),
    }
    assert [each.after.feature for each in adopt(renewed, version, windows, {}, END, new_from=renewed.ends_at)] == ["a"]


@pytest.mark.parametrize(
    ("first", "version", "renewable"),
    [
        (feature("a"), feature("a", 10), False),
        (feature("a"), OF_SEATS, False),
        (OF_SEATS, feature("a", 10), False),
        (OF_SEATS, feature("a", 20, anchor="seat"), True),
        (OF_SEATS, feature("a"), True),
        (feature("a"), feature("a", None, 5, mode="none"), False),
        (feature("a", mode="none"), feature("a"), True),
        (OF_SEATS, feature("a", None, 5, mode="none"), False),
    ],
)
def test_a_window_that_becomes_a_trial_or_narrower_ends_with_the_term_even_if_the_renewal_is_late(
    first: Feature, version: Feature, renewable: bool
) -> None:
    """The renewal does not extend it. The same holds if the version arrives during the term."""
    window = opened(catalog(1, first))["a"]
    in_time, late = [adopted(version, window, END + days * DAY) for days in (-2, 12)]
    assert (in_time.renewable, late.renewable, late.ends_at) == (renewable, renewable, END)
    assert list(adopt(POOL, catalog(2, version), {"a": late}, {}, END + 12 * DAY)) == []
    renewed, at = replace(POOL, ends_at=END + 365 * DAY), END + 20 * DAY
    for each in () if renewable else (in_time, late):
        [change] = adopt(renewed, catalog(2, version), {"a": each}, {}, at)
        assert (change.opens, change.after.starts_at) == (True, at)
    away = replace(window, renewable=False)  # a version had removed it, and another one brings it back
    assert not adopted(version, away, END + 12 * DAY).renewable


@pytest.mark.parametrize(
    ("first", "version", "extends"),
    [
        (feature("a"), feature("a", None, 5, mode="none"), False),
        (feature("a", mode="none"), feature("a"), True),
        (feature("a"), OF_SEATS, False),
        (feature("a"), feature("a", 10), False),
        (feature("a"), feature("b"), False),
        (OF_SEATS, feature("a", 20, anchor="seat"), True),
        (OF_SEATS, feature("a"), True),
        (OF_SEATS, feature("a", 10), False),
        (feature("a", 10), feature("a"), False),
    ],
)
def test_a_renewal_extends_windows_that_the_next_terms_version_makes_neither_trials_nor_narrower(
    first: Feature, version: Feature, extends: bool
) -> None:
    window = opened(catalog(1, first))["a"]
    assert window.renewed_by(catalog(2, version)) is extends
    assert not replace(window, renewable=False).renewed_by(catalog(2, version))


@pytest.mark.parametrize("becomes", [OF_SEATS, feature("a", 30), feature("a", 500)])
def test_a_later_version_does_not_delay_the_trial_that_follows_the_term(becomes: Feature) -> None:
    """This holds even though the pool is already renewed, so that windows as long as the term end later."""
    renewed, version = replace(POOL, ends_at=END + 365 * DAY), catalog(3, becomes, feature("c"))
    windows = opened(catalog(1, feature("a")))
    windows = after(windows, list(adopt(POOL, catalog(2, becomes), windows, {}, END - 330 * DAY)))
    windows = after(windows, list(adopt(renewed, version, windows, {}, END - 35 * DAY)))
    assert (windows["a"].ends_at, windows["a"].renewable) == (END, False)
    assert windows["c"].ends_at == renewed.ends_at
    [change] = adopt(renewed, version, windows, {}, END)
    assert (change.opens, change.after.starts_at, change.after.anchor) == (True, END, becomes.anchor)

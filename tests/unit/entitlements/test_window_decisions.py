"""Where a window starts and ends: its anchor, an agency's time zone, and decisions, each with its refusals."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from muster_contracts.entitlements import AccessMode, Anchor
from muster_entitlements.domain.catalog import Feature, Quota
from muster_entitlements.domain.days import end_of_day, open_for
from muster_entitlements.domain.meters import restarts_quota
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.rollouts import Change
from muster_entitlements.domain.windows import End, Start, Window, correct_start, end_early, extend, used_beyond
from muster_entitlements.errors import WindowExtendedAlready, WindowOver, WindowWithoutTrial
from muster_runtime.errors import InvalidInput
from tests.unit.entitlements.test_windows_and_checks import END, FEATURES, OF_SEATS, POOL, START

DAY = timedelta(days=1)
TRIAL_END = START + 60 * DAY
NOW = START + 10 * DAY
TRIAL = Window.open("win_1", FEATURES["deep-research"], POOL, 1)
zones = st.sampled_from(sorted(available_timezones() - {"localtime", "Factory"})).map(ZoneInfo)
starts = st.integers(0, 364 * 24 * 60).map(lambda minutes: START + timedelta(minutes=minutes))
NEW_YORK = replace(POOL, starts_at=datetime(2025, 8, 6, 4, tzinfo=UTC), time_zone="America/New_York")


def opened(feature: Feature, starts_at: datetime = START, used: timedelta = timedelta()) -> tuple[datetime, datetime]:
    window = Window.open("win_1", feature, replace(POOL, starts_at=starts_at), 1, used)
    return window.starts_at, window.ends_at


def test_a_trial_ends_at_the_end_of_a_day_in_the_agencys_time_zone() -> None:
    trial = Window.open("win_1", FEATURES["deep-research"], NEW_YORK, 1)
    assert trial.ends_at == datetime(2025, 10, 5, 4, tzinfo=UTC)  # sixty whole days
    later = Window.open("win_1", FEATURES["deep-research"], replace(NEW_YORK, starts_at=START + 9 * DAY), 1)
    assert later.ends_at == datetime(2025, 10, 14, 4, tzinfo=UTC)  # the rest of the last day is added
    in_winter = Window.open("win_1", FEATURES["deep-research"], NEW_YORK, 1, used=-35 * DAY)
    assert in_winter.ends_at == datetime(2025, 11, 9, 5, tzinfo=UTC)
    into_summer = replace(NEW_YORK, starts_at=datetime(2026, 2, 1, 5, tzinfo=UTC), ends_at=END + 300 * DAY)
    in_summer = Window.open("win_1", FEATURES["deep-research"], into_summer, 1)
    assert in_summer.ends_at == datetime(2026, 4, 2, 4, tzinfo=UTC)  # sixty days, one of which has 23 hours
    none_left = Window.open("win_1", FEATURES["deep-research"], NEW_YORK, 1, used=60 * DAY)
    assert (none_left.lasts, none_left.ends_at) == (False, NEW_YORK.starts_at)


@pytest.mark.parametrize("on", [date(2025, 11, 3), date(2026, 4, 24)])  # on the latter, the clocks skip midnight
def test_a_trial_has_the_same_number_of_days_whichever_day_it_starts(on: date) -> None:
    pool = replace(POOL, time_zone="Africa/Cairo")
    moved = correct_start(Window.open("win_1", FEATURES["deep-research"], pool, 1), pool, START, Start(on=on))
    assert moved.ends_at == end_of_day(on + 59 * DAY, pool.zone)
    assert Window.open("win_1", FEATURES["deep-research"], pool, 1, opens_at=moved.starts_at).ends_at == moved.ends_at


@given(zones, st.integers(1, 400), starts, starts)
@example(ZoneInfo("America/New_York"), 60, datetime(2026, 3, 1, 5, tzinfo=UTC), END - DAY)
@example(ZoneInfo("Africa/Cairo"), 60, datetime(2026, 4, 23, 22, tzinfo=UTC), END - DAY)
def test_a_used_up_trial_leaves_no_time_however_the_clocks_change(
    zone: ZoneInfo, days: int, first: datetime, second: datetime
) -> None:
    pool = replace(POOL, time_zone=zone.key)
    feature = FEATURES["deep-research"].model_copy(update={"trial_days": days})
    window = Window.open("win_1", feature, pool, 1, opens_at=first)
    used = open_for(window.starts_at, window.ends_at, zone)
    assert not Window.open("win_2", feature, pool, 2, used, second).lasts
    assert Change(window, replace(window, trial=False), window.ends_at + DAY).spent(zone) == used


def test_a_window_anchored_on_the_program_ends_for_all_at_once() -> None:
    program = OF_SEATS.model_copy(update={"anchor": Anchor.PROGRAM, "anchor_at": NOW})
    assert opened(program) == (NOW, NOW + 30 * DAY)
    assert opened(program, NOW + 20 * DAY, used=5 * DAY) == (NOW + 20 * DAY, NOW + 30 * DAY)
    assert opened(program, NOW + 40 * DAY) == (NOW + 40 * DAY, NOW + 40 * DAY)  # too late
    assert opened(program, used=10 * DAY) == (NOW, NOW + 20 * DAY)
    assert opened(program, used=30 * DAY) == (NOW, NOW)  # nobody has it again in a later round
    into_summer = program.model_copy(update={"anchor_at": datetime(2026, 3, 1, 5, tzinfo=UTC)})
    assert Window.open("win_1", into_summer, NEW_YORK, 1).ends_at == datetime(2026, 3, 31, 5, tzinfo=UTC)
    for_the_term = program.model_copy(update={"trial_days": None, "grace_days": None})
    assert opened(for_the_term) == (NOW, END)


def test_each_seat_has_its_own_trial_in_a_window_anchored_on_seats() -> None:
    window = Window.open("win_1", OF_SEATS, POOL, 1)
    assert (window.trial, window.ends_at, window.seat_trial) == (False, END, 35 * DAY)
    began_at = START + 3 * DAY
    assert window.access(NOW) is AccessMode.UNLIMITED  # the first use begins it
    for day, mode in ((0, AccessMode.UNLIMITED), (34, AccessMode.UNLIMITED), (35, AccessMode.NONE)):
        assert window.access(began_at + day * DAY, began_at) is mode
    assert window.closes_at(END - DAY) == END
    # A renewal may extend the window; only if none can does the window's end also end the seats' trials.
    removed = replace(window, renewable=False)
    assert [each.seat_ends_at(END - DAY) for each in (window, removed)] == [END + 34 * DAY, END]
    for each, last in ((window, END - 5 * DAY), (removed, END - timedelta.resolution)):
        assert each.seats_begun_until(END + 30 * DAY) == last
    assert removed.seats_begun_until(END - DAY) == END - 36 * DAY


def test_grace_follows_a_trial_unless_none_was_left() -> None:
    feature = OF_SEATS.model_copy(update={"anchor": Anchor.AGENCY})
    window = Window.open("win_1", feature, POOL, 1)
    assert window.grace_ends_at == window.ends_at + 5 * DAY
    assert window.access(window.ends_at) is AccessMode.UNLIMITED
    assert window.access(window.ends_at + 5 * DAY) is AccessMode.NONE
    assert Window.open("win_1", feature, POOL, 1, used=30 * DAY).grace_ends_at is None


def test_a_trial_is_extended_once_within_the_term() -> None:
    extended = extend(TRIAL, POOL, NOW, End(on=date(2025, 11, 4)))
    assert (extended.starts_at, extended.ends_at) == (START, datetime(2025, 11, 5, tzinfo=UTC))
    assert (extended.revision, extended.extended) == (2, True)
    assert extend(TRIAL, NEW_YORK, NOW, End(on=date(2025, 11, 4))).ends_at == datetime(2025, 11, 5, 5, tzinfo=UTC)
    with pytest.raises(WindowExtendedAlready):
        extend(extended, POOL, NOW, End(at=END))
    for at in (TRIAL_END, END + DAY):
        with pytest.raises(InvalidInput, match=r"ends_at: .* must be after the window's end"):
            extend(TRIAL, POOL, NOW, End(at=at))
    with pytest.raises(InvalidInput, match="ends_on: '2025-10-04'"):
        extend(TRIAL, POOL, NOW, End(on=date(2025, 10, 4)))


def test_a_trial_is_ended_early_but_not_in_the_past() -> None:
    assert end_early(TRIAL, POOL, NOW, End()).ends_at == NOW
    assert end_early(TRIAL, POOL, START - DAY, End()).ends_at == START
    assert end_early(TRIAL, POOL, NOW, End(on=date(2025, 9, 1))).ends_at == datetime(2025, 9, 2, tzinfo=UTC)
    for at in (NOW - DAY, TRIAL_END):
        with pytest.raises(InvalidInput, match="ends_at"):
            end_early(TRIAL, POOL, NOW, End(at=at))


def test_a_corrected_start_moves_the_end_with_it() -> None:
    moved = correct_start(TRIAL, POOL, NOW, Start(on=date(2025, 8, 13)))
    assert (moved.starts_at, moved.ends_at) == (START + 7 * DAY, TRIAL_END + 7 * DAY)
    there = correct_start(TRIAL, NEW_YORK, NOW, Start(on=date(2025, 8, 13)))
    assert there.starts_at == datetime(2025, 8, 13, 4, tzinfo=UTC)
    # If the clocks go back in between, or forward, the trial still ends with a day, and has as many days.
    trial = Window.open("win_1", FEATURES["deep-research"], NEW_YORK, 1)
    for on, ends_at in (
        (date(2025, 9, 15), datetime(2025, 11, 14, 5, tzinfo=UTC)),
        (date(2026, 1, 10), datetime(2026, 3, 11, 4, tzinfo=UTC)),
    ):
        trial = correct_start(trial, NEW_YORK, NOW, Start(on=on))
        assert trial.ends_at == ends_at
    for at in (START, START - DAY, END):
        with pytest.raises(
            InvalidInput, match=r"starts_at: .* must differ from the current start and be within the term"
        ):
            correct_start(TRIAL, POOL, NOW, Start(at=at))


def test_a_corrected_start_leaves_the_end_in_the_future() -> None:
    trial = replace(TRIAL, starts_at=START + 50 * DAY, ends_at=START + 110 * DAY)
    rule = "must leave the window's end in the future: it would end at 2025-10-06T00:00:00"
    with pytest.raises(InvalidInput, match=f"starts_on: '2025-08-07' is invalid: {rule}"):
        correct_start(trial, POOL, START + 61 * DAY, Start(on=date(2025, 8, 7)))
    moved = correct_start(trial, POOL, START + 61 * DAY - timedelta.resolution, Start(on=date(2025, 8, 7)))
    assert moved.ends_at == START + 61 * DAY


@given(zones, st.integers(1, 400), starts, starts)
@example(ZoneInfo("Africa/Cairo"), 60, START, datetime(2026, 4, 23, 22, tzinfo=UTC))
@example(ZoneInfo("Cuba"), 173, datetime(2025, 9, 16, 4, 1, tzinfo=UTC), START)
def test_a_corrected_start_gives_the_end_of_a_trial_that_opens_then_and_can_be_undone(
    zone: ZoneInfo, days: int, first: datetime, second: datetime
) -> None:
    assume(first != second)
    pool = replace(POOL, time_zone=zone.key)
    feature = FEATURES["deep-research"].model_copy(update={"trial_days": days})
    window = Window.open("win_1", feature, pool, 1, opens_at=first)
    moved = correct_start(window, pool, START, Start(at=second))
    assert moved.ends_at == Window.open("win_1", feature, pool, 1, opens_at=second).ends_at
    assert correct_start(moved, pool, START, Start(at=first)).ends_at == window.ends_at


@given(zones, starts, starts)
def test_a_correction_of_the_start_of_a_trial_that_was_ended_early_can_be_undone(
    zone: ZoneInfo, first: datetime, second: datetime
) -> None:
    assume(first != second)
    pool = replace(POOL, time_zone=zone.key)
    for at in (first + timedelta(days=5, microseconds=1), first):
        ended = replace(TRIAL, starts_at=first, ends_at=at, ended_early=True)
        moved = correct_start(ended, pool, min(first, second) - DAY, Start(at=second))
        assert moved.ends_at - second == at - first
        assert correct_start(moved, pool, min(first, second) - DAY, Start(at=first)).ends_at == at


def test_only_an_open_trial_can_be_changed() -> None:
    term_long = Window.open("win_1", FEATURES["frontier-models"], POOL, 1)
    decisions: list[Callable[[Window, Pool, datetime], Window]] = [
        lambda window, pool, now: extend(window, pool, now, End(at=END)),
        lambda window, pool, now: end_early(window, pool, now, End()),
        lambda window, pool, now: correct_start(window, pool, now, Start(at=START + DAY)),
    ]
    for decide in decisions:
        with pytest.raises(WindowWithoutTrial):
            decide(term_long, POOL, NOW)
        with pytest.raises(WindowOver):
            decide(TRIAL, POOL, TRIAL_END)
        # For example, an enrollment that was withdrawn before it began.
        for over in (replace(POOL, withdrawn_at=START - 2 * DAY), replace(POOL, ended=True)):
            with pytest.raises(WindowOver):
                decide(TRIAL, over, START - DAY)
        # The term is over, though billing has not yet reported whether another follows.
        for now in (END, END + DAY):
            with pytest.raises(WindowOver):
                decide(replace(TRIAL, ends_at=END + 30 * DAY), POOL, now)


def test_a_window_that_a_version_removed_before_it_began_does_not_come_back() -> None:
    """A trial that a decision ended before it began can still be extended: the feature is in the catalog."""
    before = START - DAY
    ended = end_early(TRIAL, POOL, before, End())
    assert extend(ended, POOL, before, End(at=TRIAL_END)).ends_at == TRIAL_END
    gone = replace(ended, renewable=False)
    with pytest.raises(WindowOver):
        extend(gone, POOL, before, End(at=TRIAL_END))


@given(st.integers(0, 60), st.lists(st.integers(0, 60), max_size=3), st.integers(0, 60))
def test_an_agency_that_continues_others_gets_no_second_trial(own: int, others: list[int], since: int) -> None:
    """What is left is one trial minus the longest use among them, even if the same agencies are named again."""
    used = {"deep-research": own * DAY}
    continued = [{"deep-research": days * DAY} for days in others]
    more = used_beyond(used, continued).get("deep-research", timedelta())
    total = own * DAY + more
    assert total == max(own, *others, 0) * DAY
    _, ends_at = opened(FEATURES["deep-research"], used=total)
    assert ends_at - START == max(60 * DAY - total, timedelta())
    assert used_beyond({"deep-research": total + since * DAY}, continued) == {}


def test_use_by_only_one_of_the_continued_agencies_counts() -> None:
    continued = [{"deep-research": 5 * DAY}, {"canvas": 3 * DAY, "deep-research": timedelta()}]
    assert used_beyond({"agents": DAY}, continued) == {"deep-research": 5 * DAY, "canvas": 3 * DAY}
    assert used_beyond({"agents": DAY}, []) == {}


@pytest.mark.parametrize(
    ("changes", "restarts"),
    [
        ({"starts_at": NOW - 4 * DAY}, True),
        ({"starts_at": NOW - 30 * DAY}, True),
        ({"starts_at": NOW + 2 * DAY}, True),
        ({"ends_at": NOW}, True),
        ({"ends_at": NOW + 2 * DAY}, True),  # this month, so its rest gets a quota of its own
        ({"ends_at": NOW + 30 * DAY}, False),
        ({"ends_at": TRIAL_END + 30 * DAY}, False),
        ({"ends_at": NOW, "mode": AccessMode.UNLIMITED}, False),  # no quota has limited the use until now
    ],
)
def test_a_decision_restarts_a_quota_if_the_current_period_would_otherwise_go_on(
    changes: dict[str, Any], restarts: bool
) -> None:
    window = replace(TRIAL, mode=changes.get("mode", AccessMode.QUOTA), starts_at=START + 2 * DAY)
    feature = FEATURES["deep-research"].model_copy(update={"monthly_quota_after": None, "quota": Quota(limit=5)})
    assert restarts_quota(POOL, feature, window, replace(window, **changes), NOW) is restarts

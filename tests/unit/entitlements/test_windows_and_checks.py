"""Windows are half-open, and an answer holds for as long as it says."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster_contracts.entitlements import AccessMode, Anchor
from muster_entitlements.domain.catalog import Feature, packaged_catalog
from muster_entitlements.domain.checks import Question, Reason, Register, Verdict, check, check_all
from muster_entitlements.domain.pools import Pool, PoolState
from muster_entitlements.domain.seats import SeatState
from muster_entitlements.domain.windows import Window

START = datetime(2025, 8, 6, tzinfo=UTC)
END = datetime(2026, 8, 6, tzinfo=UTC)
TICK = timedelta(microseconds=1)
FEATURES = packaged_catalog().features

POOL = Pool(
    agency_id="NASA",
    enrollment_id="enr_1",
    starts_at=START,
    ends_at=END,
    suspended=False,
    withdrawn_at=None,
    ended=False,
    cap=10,
    in_use=1,
    limit_met=False,
    revision=7,
    generation=1,
    revoking=0,
)

instants = st.datetimes(datetime(2025, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
pools = st.builds(
    replace,
    st.just(POOL),
    starts_at=st.sampled_from([START, START - timedelta(days=30)]),
    suspended=st.booleans(),
    withdrawn_at=st.none() | instants,
    ended=st.booleans(),
)
OF_SEATS = Feature(
    key="canvas",
    name="Canvas",
    mode=AccessMode.UNLIMITED,
    trial_days=30,
    grace_days=5,
    mode_after=AccessMode.NONE,
    anchor=Anchor.SEAT,
)
OTHERS = [
    OF_SEATS,
    OF_SEATS.model_copy(update={"anchor": Anchor.AGENCY}),
    OF_SEATS.model_copy(update={"anchor": Anchor.PROGRAM, "anchor_at": START + timedelta(days=10)}),
]
windows = st.builds(Window.open, st.just("win_1"), st.sampled_from([*FEATURES.values(), *OTHERS]), pools, st.just(1))
questions = st.builds(
    Question,
    pool=st.none() | pools,
    seat=st.none() | st.sampled_from(SeatState),
    feature=st.none() | st.just("deep-research"),
    window=st.none() | windows,
    began_at=st.none() | instants,
)


def ask(feature: str | None = None, pool: Pool = POOL, seat: SeatState | None = SeatState.ACTIVE) -> Question:
    window = Window.open("win_1", FEATURES[feature], pool, 1) if feature else None
    return Question(pool, seat, feature, window)


def test_a_trial_lasts_sixty_days_and_has_notices_before_its_end() -> None:
    window = Window.open("win_1", FEATURES["deep-research"], POOL, 1)
    assert (window.starts_at, window.ends_at, window.trial) == (START, datetime(2025, 10, 5, tzinfo=UTC), True)
    assert window.notices() == {
        14: datetime(2025, 9, 21, tzinfo=UTC),
        7: datetime(2025, 9, 28, tzinfo=UTC),
        1: datetime(2025, 10, 4, tzinfo=UTC),
    }


def test_a_window_without_days_lasts_as_long_as_the_term() -> None:
    window = Window.open("win_1", FEATURES["frontier-models"], POOL, 1)
    assert (window.starts_at, window.ends_at, window.trial) == (START, END, False)


@given(windows, instants)
def test_a_window_is_half_open(window: Window, now: datetime) -> None:
    for instant in (now, window.starts_at - TICK, window.starts_at, window.ends_at - TICK, window.ends_at):
        if instant < window.starts_at:
            assert window.access(instant) is AccessMode.NONE
        elif instant < (window.grace_ends_at or window.ends_at):
            assert window.access(instant) is window.mode
        else:
            assert window.access(instant) is window.mode_after


def test_a_term_is_half_open() -> None:
    assert POOL.state(START - TICK) is PoolState.NOT_STARTED
    assert POOL.state(START) is PoolState.OPEN
    assert POOL.state(END - TICK) is PoolState.OPEN
    assert POOL.state(END) is PoolState.ENDED


@pytest.mark.parametrize(
    ("pool", "state"),
    [
        (replace(POOL, suspended=True), PoolState.SUSPENDED),
        (replace(POOL, suspended=True, ended=True), PoolState.ENDED),
        (replace(POOL, suspended=True, ended=True, withdrawn_at=START), PoolState.WITHDRAWN),
    ],
)
def test_the_most_final_state_counts(pool: Pool, state: PoolState) -> None:
    assert pool.state(START) is state
    assert check(ask("deep-research", pool), START).reason is Reason(state.value)
    assert check(ask("deep-research", pool), START).verdict is Verdict.REFUSED


def test_answers() -> None:
    trial_end = START + timedelta(days=60)
    cases = [
        (Question(None, None, None, None), START, "refused", "unknown", None),
        (ask(), START - TICK, "refused", "not_started", START),
        (ask(seat=None), START, "refused", "no_seat", END),
        (ask(seat=SeatState.REVOKED), START, "refused", "no_seat", END),
        (ask(), START, "allowed", "seat_active", END),
        (ask(seat=SeatState.ASSIGNED), START, "allowed", "seat_assigned", END),
        (ask("deep-research"), START, "allowed", "window_open", trial_end),
        (ask("deep-research"), trial_end, "allowed", "quota", END),
        (ask("frontier-models"), END - TICK, "allowed", "window_open", END),
        (ask("frontier-models"), END, "refused", "ended", None),
        (Question(POOL, SeatState.ACTIVE, "newer", None), START, "refused", "no_window", END),
    ]
    for question, now, verdict, reason, valid_until in cases:
        answer = check(question, now)
        assert (answer.verdict, answer.reason, answer.valid_until) == (verdict, reason, valid_until)
    assert check(ask("deep-research"), trial_end).monthly_quota == 25


@given(questions, instants, st.floats(0, 1))
def test_an_answer_holds_until_its_end(question: Question, now: datetime, share: float) -> None:
    answer = check(question, now)
    last = (answer.valid_until or datetime(2030, 1, 1, tzinfo=UTC)) - TICK
    assert now <= last
    later = now + (last - now) * share
    assert check(question, later) == answer
    assert check(question, last) == answer


@given(
    pool=st.none() | st.just(POOL),
    opened=st.sets(st.sampled_from(["canvas", *FEATURES])),
    seats=st.dictionaries(st.sampled_from("abc"), st.sampled_from(SeatState)),
    begun=st.dictionaries(st.sampled_from("abc"), st.sampled_from([START, START + timedelta(days=20)])),
    pairs=st.lists(st.tuples(st.sampled_from("abcd"), st.none() | st.sampled_from(["canvas", *FEATURES]))),
    now=st.sampled_from([START - TICK, START, START + timedelta(days=60), END]),
)
def test_many_checks_get_the_answers_that_each_would_get_alone(
    pool: Pool | None,
    opened: set[str],
    seats: dict[str, SeatState],
    begun: dict[str, datetime],
    pairs: list[tuple[str, str | None]],
    now: datetime,
) -> None:
    by_feature = {feature: Window.open("win_1", FEATURES.get(feature, OF_SEATS), POOL, 1) for feature in opened}
    alone = [
        check(
            Question(pool, seats.get(subject), feature, by_feature.get(feature or ""), began_at=begun.get(subject)),
            now,
        )
        for subject, feature in pairs
    ]
    together = check_all(Register(pool, by_feature, seats, begun=begun), pairs, now)
    assert [answer for _, answer in together] == alone

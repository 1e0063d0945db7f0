"""Grants in checks: the person's own, the agency's, then the window; and an answer holds until its end."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from muster_contracts.entitlements import AccessMode
from muster_entitlements.domain.checks import Question, Reason, Register, check, check_all
from muster_entitlements.domain.grants import Grant, holding
from muster_entitlements.domain.seats import SeatState
from muster_entitlements.domain.windows import Window
from tests.unit.entitlements.test_windows_and_checks import FEATURES, POOL, START

DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)

days = st.integers(-5, 370).map(lambda day: START + day * DAY)
grants = st.builds(
    lambda subject, mode, starts_at, length, revoked_at: Grant(
        grant_id="grt_1",
        agency_id="NASA",
        feature="deep-research",
        subject_ref=subject,
        mode=mode,
        monthly_quota=7 if mode is AccessMode.QUOTA else None,
        starts_at=starts_at,
        ends_at=starts_at + length * DAY if length else None,
        reason="",
        revoked_at=revoked_at,
    ),
    st.none() | st.sampled_from(["a", "b"]),
    st.sampled_from([AccessMode.UNLIMITED, AccessMode.QUOTA]),
    days,
    st.integers(0, 100),
    st.none() | days,
)
WINDOW = Window.open("win_1", FEATURES["deep-research"], POOL, 1)


def ask(found: list[Grant], window: Window | None = WINDOW) -> Question:
    return Question(POOL, SeatState.ACTIVE, "deep-research", window, grants=tuple(found))


@given(st.lists(grants, max_size=3), days, st.booleans())
def test_the_persons_grant_decides_before_the_agencys_and_both_before_the_window(
    found: list[Grant], now: datetime, with_window: bool
) -> None:
    window = WINDOW if with_window else None
    found = [grant for grant in found if grant.subject_ref != "b"]
    answer = check(ask(found, window), now)
    own = [grant for grant in found if grant.subject_ref and grant.holds(now)]
    agencys = [grant for grant in found if not grant.subject_ref and grant.holds(now)]
    if not START <= now < POOL.ends_at or not (own or agencys):
        assert answer == check(ask(found, window), now)
        assert answer.reason is check(ask([], window), now).reason
    else:
        deciding = {grant.mode: grant for grant in own or agencys}
        assert answer.reason in {Reason.GRANTED if mode is AccessMode.UNLIMITED else Reason.QUOTA for mode in deciding}
    last = (answer.valid_until or POOL.ends_at + 100 * DAY) - TICK
    assert check(ask(found, window), last) == answer


@given(st.lists(grants, max_size=4), st.lists(st.sampled_from("abc"), max_size=6), days)
def test_many_checks_with_grants_get_the_answers_that_each_would_get_alone(
    found: list[Grant], subjects: list[str], now: datetime
) -> None:
    seats = {"a": SeatState.ACTIVE, "b": SeatState.ACTIVE}
    register = Register(POOL, {"deep-research": WINDOW}, seats, found)
    alone = []
    for subject in subjects:
        own = [grant for grant in found if grant.subject_ref == subject]
        of_agency = [grant for grant in found if grant.subject_ref is None]
        question = Question(POOL, seats.get(subject), "deep-research", WINDOW, grants=(*own, *of_agency))
        alone.append(check(question, now))
    together = check_all(register, [(subject, "deep-research") for subject in subjects], now)
    assert [answer for _, answer in together] == alone


@given(grants, grants, st.lists(days, max_size=50))
def test_grants_overlap_if_both_could_apply_at_once(one: Grant, other: Grant, instants: list[datetime]) -> None:
    assert one.overlaps(other) == other.overlaps(one)
    if not one.overlaps(other):
        assert all(holding([one], at) is None or holding([other], at) is None for at in instants)

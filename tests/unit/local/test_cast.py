"""Who takes part in the demonstration, and with how many seats."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster_local.demo.cast import DECLINING, END, START, STEPS, apportion, cast


def test_the_44_top_level_executive_agencies_take_part() -> None:
    agencies = cast(10_000)
    assert len({agency.id for agency in agencies}) == 44
    assert sum(agency.seats for agency in agencies) == 10_000
    assert {tuple(sorted(agency.steps)) for agency in agencies} == {tuple(sorted(STEPS))}
    assert len({agency.steps for agency in agencies}) == 6


def test_the_first_terms_end_within_the_year_that_is_shown() -> None:
    first_day = [agency for agency in cast(500) if agency.enrolls_at.date() == START.date()]
    assert DECLINING in {agency.id for agency in first_day}
    assert all(agency.enrolls_at.replace(year=START.year + 1) < END for agency in first_day)


def test_people_are_distinct() -> None:
    agency = cast(1_000)[0]
    assert len({agency.person(number).email for number in range(1_000)}) == 1_000


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=50), st.integers(0, 10**6))
def test_seats_are_shared_out_whole_and_in_proportion(weights: list[int], spare: int) -> None:
    seats = len(weights) + spare
    shares = apportion(seats, weights)
    assert sum(shares) == seats
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share - 1 - spare * weight / sum(weights)) < 1


def test_too_few_seats_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        apportion(43, [1] * 44)

"""How every service counts a year."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster_contracts.calendar import one_year_after

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (datetime(2028, 2, 29, 7, tzinfo=UTC), datetime(2029, 2, 28, 7, tzinfo=UTC)),
        (datetime(2027, 2, 28, tzinfo=UTC), datetime(2028, 2, 28, tzinfo=UTC)),
        (datetime(2027, 12, 31, 23, 59, tzinfo=UTC), datetime(2028, 12, 31, 23, 59, tzinfo=UTC)),
    ],
)
def test_a_year_is_a_calendar_year(start: datetime, end: datetime) -> None:
    assert one_year_after(start) == end


def test_a_year_after_a_date_is_a_date() -> None:
    assert one_year_after(date(2028, 2, 29)) == date(2029, 2, 28)


@given(st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_a_year_is_365_or_366_days_and_keeps_the_time(start: datetime) -> None:
    end = one_year_after(start)
    assert end - start in (365 * DAY, 366 * DAY)
    assert end.timetz() == start.timetz()
    assert (end.year, end.month) == (start.year + 1, start.month)

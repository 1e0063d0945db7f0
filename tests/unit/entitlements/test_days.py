"""An agency's days become instants: once, in order, and without a gap, whatever its clocks do."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from muster_entitlements.domain.days import day_until, end_of_day, end_of_day_later, resolve, to_end_of_day

zones = st.sampled_from(sorted(available_timezones() - {"localtime", "Factory"})).map(ZoneInfo)
seconds = st.datetimes(datetime(1990, 1, 1), datetime(2037, 12, 31)).map(lambda t: t.replace(microsecond=0))  # noqa: DTZ001
days = st.dates(date(1990, 1, 2), date(2037, 12, 30))
SECOND = timedelta(seconds=1)
few = settings(max_examples=60)


def local(instant: datetime, zone: ZoneInfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None)


@pytest.mark.parametrize(
    ("zone", "wanted", "instant"),
    [
        ("America/New_York", "2025-10-06T00:00", "2025-10-06T04:00+00:00"),
        ("America/New_York", "2026-03-08T02:30", "2026-03-08T07:00+00:00"),  # skipped
        ("America/New_York", "2025-11-02T01:30", "2025-11-02T06:30+00:00"),  # twice
        ("America/Havana", "2026-03-08T00:00", "2026-03-08T05:00+00:00"),  # a day that starts at 1:00
        ("America/Havana", "2025-11-02T00:00", "2025-11-02T05:00+00:00"),  # a midnight that occurs twice
        ("Pacific/Apia", "2011-12-30T12:00", "2011-12-30T10:00+00:00"),  # a day that never was
        ("UTC", "2025-10-05T00:00", "2025-10-05T00:00+00:00"),
    ],
)
def test_a_local_time_is_an_instant(zone: str, wanted: str, instant: str) -> None:
    assert resolve(datetime.fromisoformat(wanted), ZoneInfo(zone)) == datetime.fromisoformat(instant)


@few
@given(zones, seconds)
def test_it_is_the_last_instant_of_that_local_time_or_the_first_after_it(zone: ZoneInfo, wanted: datetime) -> None:
    instant = resolve(wanted, zone)
    shown = local(instant, zone)
    assert shown >= wanted
    if shown > wanted:  # a gap: a second before, it was earlier than that
        assert local(instant - SECOND, zone) < wanted
    else:  # of the instants that show it, the last
        assert not [h for h in (0.5, 1, 1.5, 2, 3, 24) if local(instant + timedelta(hours=h), zone) == wanted]


@few
@given(zones, days)
def test_days_are_in_order_and_contain_their_instants(zone: ZoneInfo, day: date) -> None:
    ends = [end_of_day(day + timedelta(days=n), zone) for n in range(3)]
    assert ends == sorted(ends)
    assert local(ends[0], zone).date() > day
    assert ends[0] == end_of_day(day, zone)


@few
@given(zones, seconds.map(lambda t: t.replace(tzinfo=UTC)))
def test_an_instant_is_moved_to_the_end_of_its_day_and_no_further(zone: ZoneInfo, instant: datetime) -> None:
    moved = to_end_of_day(instant, zone)
    assert instant <= moved <= instant + timedelta(hours=49)  # a day may be skipped, and the next one have 25 hours
    assert to_end_of_day(moved, zone) == moved


def test_a_day_whose_first_minutes_are_skipped_counts_as_a_whole_day() -> None:
    """In Havana, the clocks went from 0:00 to 1:00 on March 8."""
    midnight = datetime(2026, 3, 1, 5, tzinfo=UTC)
    for minutes, end in ((0, "2026-03-08T05:00Z"), (1, "2026-03-09T04:00Z"), (90, "2026-03-09T04:00Z")):
        began = midnight + timedelta(minutes=minutes)
        later = end_of_day_later(began, timedelta(days=7), ZoneInfo("America/Havana"))
        assert later == datetime.fromisoformat(end)


@few
@given(zones, days)
@example(ZoneInfo("Atlantic/Azores"), date(2025, 10, 25))  # the next midnight occurs twice
@example(ZoneInfo("America/Havana"), date(2026, 3, 7))  # and this one never
def test_each_end_is_the_end_of_its_own_day(zone: ZoneInfo, day: date) -> None:
    end = end_of_day(day, zone)
    found = day_until(end, zone)
    assert end_of_day(found, zone) == end
    assert found == day or local(end, zone).date() > day + timedelta(days=1)  # a day that never was
    assert day_until(end + SECOND, zone) == local(end + SECOND, zone).date()

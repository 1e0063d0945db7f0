"""Days in an agency's time zone, resolved to instants.

A local time that a clock change skips becomes the first instant after the change. Of a local time that occurs twice,
the later one counts.
"""

from calendar import monthrange
from datetime import UTC, date, datetime, time, timedelta
from typing import TypeVar
from zoneinfo import ZoneInfo

Day = TypeVar("Day", bound=date)  # or an instant

# The years that requests may contain.
_YEARS = range(2000, 2200)

_SECOND = timedelta(seconds=1)

DAY = timedelta(days=1)


def zone_of(time_zone: str | None) -> ZoneInfo:
    """The time zone of an agency's days, by its name in the IANA database; None is UTC."""
    return ZoneInfo(time_zone or "UTC")


def resolve(local: datetime, zone: ZoneInfo) -> datetime:
    """The instant, UTC, of a naive local time, in whole seconds."""
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first <= second:  # it exists once, or twice
        return second
    # It does not exist: the clocks go forward between the two instants. Find the instant at which they pass it.
    before, after = second, first
    while after - before > _SECOND:
        middle = before + (after - before) // 2
        middle -= timedelta(microseconds=middle.microsecond)
        if _local(middle, zone) >= local:
            after = middle
        else:
            before = middle
    return after


def end_of_day(day: date, zone: ZoneInfo) -> datetime:
    """The exclusive end of a local day, UTC: the start of the next one."""
    return resolve(datetime.combine(day + DAY, time()), zone)


def to_end_of_day(instant: datetime, zone: ZoneInfo) -> datetime:
    """The end of the local day that contains an instant, or the instant itself if it is the end of a day."""
    return end_of_day(day_until(instant, zone), zone)


def day_until(instant: datetime, zone: ZoneInfo) -> date:
    """The local day that ends at an instant, or else the one that contains it."""
    day = _local(instant, zone).date()
    return day - DAY if end_of_day(day - DAY, zone) == instant else day


def later(instant: datetime, by: timedelta, zone: ZoneInfo) -> datetime:
    """The instant at which the local clocks have advanced by `by`: a day counts as a day, even if it has 23 hours."""
    return resolve(_clock(instant, zone) + by, zone)


def end_of_day_later(instant: datetime, by: timedelta, zone: ZoneInfo) -> datetime:
    """The end of the local day in which the local clocks have advanced by `by`, even if a clock change skips that time.

    If they have advanced to midnight, that is the end.
    """
    local = _clock(instant, zone) + by
    return end_of_day((local - timedelta.resolution).date(), zone)


def open_for(starts_at: datetime, ends_at: datetime, zone: ZoneInfo) -> timedelta:
    """How long something was open by the local clocks; zero if it ends before it starts."""
    return max(_clock(ends_at, zone) - _clock(starts_at, zone), timedelta())


def months_later(instant: datetime, months: int, zone: ZoneInfo) -> datetime:
    """The instant at which the local clocks show `months` later. If that month lacks the day, its last day counts."""
    if not months:
        return instant  # even if its local time occurs twice
    local = _local(instant, zone)
    year, month = divmod(local.year * 12 + local.month - 1 + months, 12)
    day = min(local.day, monthrange(year, month + 1)[1])
    return resolve(local.replace(year=year, month=month + 1, day=day), zone)


def months_between(earlier: datetime, after: datetime, zone: ZoneInfo) -> int:
    """How many whole months lie between two instants by the local clocks; negative if the first is the later one."""
    first, second = _local(earlier, zone), _local(after, zone)
    months = (second.year - first.year) * 12 + second.month - first.month
    while months_later(earlier, months, zone) > after:
        months -= 1
    return months


def midnight_of(instant: datetime) -> datetime:
    """The last midnight, UTC, at or before an instant."""
    return datetime.combine(instant.date(), time(), UTC)


def _local(instant: datetime, zone: ZoneInfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None)


def _clock(instant: datetime, zone: ZoneInfo) -> datetime:
    """What the local clocks show. If a day's midnight is skipped, its first instant counts as that midnight."""
    local = _local(instant, zone)
    midnight = datetime.combine(local, time())
    return midnight if resolve(midnight, zone) == instant else local


def in_range(value: Day) -> Day:
    """Accept a day or instant only if no calculation with it can leave the calendar. Raises ValueError."""
    if value.year not in _YEARS:
        raise ValueError(f"must be in the years {_YEARS.start} to {_YEARS.stop - 1}")
    return value

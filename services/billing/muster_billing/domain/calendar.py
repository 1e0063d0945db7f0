"""Civil days and years. Days are those of the program's time zone, whatever the hour in UTC."""

from datetime import date, datetime
from zoneinfo import ZoneInfo


def civil_day(instant: datetime, zone: ZoneInfo) -> date:
    """The day on which an instant falls in a time zone."""
    return instant.astimezone(zone).date()


def fiscal_year(day: date) -> int:
    """The federal fiscal year of a civil day: it begins on October 1 of the year before (31 U.S.C. 1102)."""
    return day.year + (day.month >= 10)

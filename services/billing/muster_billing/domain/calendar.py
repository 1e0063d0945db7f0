"""Civil days and years. Days are those of the program's time zone, whatever the hour in UTC."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from muster_contracts.calendar import one_year_after


def civil_day(instant: datetime, zone: ZoneInfo) -> date:
    """The day on which an instant falls in a time zone."""
    return instant.astimezone(zone).date()


def fiscal_year(day: date) -> int:
    """The federal fiscal year of a civil day: it begins on October 1 of the year before (31 U.S.C. 1102)."""
    return day.year + (day.month >= 10)


@dataclass(frozen=True, slots=True)
class PeriodOfPerformance:
    """The days, both inclusive, on which a term's service is provided.

    It may cross into the next fiscal year if it is at most one year long and is paid from the year in which it begins
    (41 U.S.C. 3902). So it ends the day before its first day recurs, whatever the hour at which the term begins and
    ends.
    """

    first_day: date

    @property
    def last_day(self) -> date:
        return one_year_after(self.first_day) - timedelta(days=1)

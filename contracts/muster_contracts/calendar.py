"""How long a year is, wherever a term's length or a period of performance is computed."""

from datetime import date, datetime
from typing import TypeVar

D = TypeVar("D", date, datetime)


def one_year_after(moment: D) -> D:
    """The same day, and time of day, a calendar year later; February 29 becomes February 28."""
    if (moment.month, moment.day) == (2, 29):
        moment = moment.replace(day=28)
    return moment.replace(year=moment.year + 1)

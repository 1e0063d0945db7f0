"""Adoption: how many people use a feature, and how soon after they got their seats."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta

# Nothing is shown of fewer people than this: it could reveal who they are.
SMALLEST_GROUP = 10

# Active people are counted over these numbers of days, up to and including the day itself.
SPANS = (1, 7, 28)

# How long a day's counts are kept: 25 months, like the sums of use.
KEPT_FOR = timedelta(days=762)

# A period has fewer days than this, so each of its days has its own bit.
_BITS = 63

# By how many days the dates of two time zones can differ: an agency may enroll again in another one.
_ZONES_APART = 2


@dataclass(frozen=True, slots=True)
class Adoption:
    """How many people of an agency used a feature on a day, and within the 7 and the 28 days up to it.

    `first_uses` counts those who used it for the first time, and `first_use_days` sums their days from seat to use.
    `never_used` counts the seat holders who have not used it. None: not shown, because it would reveal too few people.
    """

    feature: str
    day: date
    active: int | None = 0
    active_7_days: int | None = 0
    active_28_days: int | None = 0
    first_uses: int | None = 0
    first_use_days: int = 0
    never_used: int | None = None

    @property
    def days_to_first_use(self) -> float | None:
        """The average days from seat to first use; None if `first_uses` is zero or not shown."""
        return round(self.first_use_days / self.first_uses, 1) if self.first_uses else None

    def shown(self, seats: int) -> "Adoption":
        """A copy without the numbers that reveal too few people, for an agency with this many seats.

        A number does so if it covers too few people, or if its difference from another one that is shown does.
        """
        if seats < SMALLEST_GROUP:
            return replace(self, active=None, active_7_days=None, active_28_days=None, first_uses=None, never_used=None)
        active_28_days = _shown(self.active_28_days, seats)
        active_7_days = _shown(self.active_7_days, seats, active_28_days)
        active = _shown(self.active, seats, active_28_days, active_7_days)
        first_uses = _shown(self.first_uses, seats, active_28_days, active_7_days, active)
        used = None if self.never_used is None else _shown(seats - self.never_used, seats)
        parts = active_28_days, active_7_days, active, first_uses
        return replace(
            self,
            active=active,
            active_7_days=active_7_days,
            active_28_days=active_28_days,
            first_uses=first_uses,
            never_used=None if used is None or any(_shown(part, used) != part for part in parts) else self.never_used,
        )


def shows(number: int) -> bool:
    """Whether a count of people can be shown: it is zero, or large enough."""
    return number == 0 or number >= SMALLEST_GROUP


def _shown(number: int | None, *wholes: int | None) -> int | None:
    """A count of people, unless it is too small, or leaves too few of a larger count whose people include them."""
    if number is None or not shows(number):
        return None
    return number if all(shows(whole - number) for whole in wholes if whole is not None and whole > number) else None


def bit_of(day: date) -> int:
    """The bit of a day."""
    return 1 << day.toordinal() % _BITS


def days_of(bits: int, first: date) -> Iterable[int]:
    """The days whose bits are set, as ordinals, in a period that begins on `first` in the agency's current time zone.

    The bits may be those of days in an earlier one.
    """
    start = first.toordinal() - _ZONES_APART
    while bits:
        lowest = bits & -bits
        yield start + (lowest.bit_length() - 1 - start) % _BITS
        bits ^= lowest


def gains(used: Iterable[int], fresh: Iterable[int]) -> Counter[tuple[int, int]]:
    """How much the counts of active people grow, by day and span, when one person uses a feature on `fresh` days.

    Days are ordinals. Use on a day counts on that day and the following ones, for the length of the span, except on
    days on which other use already counts.
    """
    known = sorted(set(used))
    grown: Counter[tuple[int, int]] = Counter()
    for day in sorted(set(fresh).difference(known)):
        place = bisect_left(known, day)
        for span in SPANS:
            first = max(day, known[place - 1] + span) if place else day
            end = min(day + span, known[place]) if place < len(known) else day + span
            grown.update((other, span) for other in range(first, end))
        known.insert(place, day)
    return grown

"""Adoption: how many people use a feature, and how soon after they got their seats."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta

# Numbers of fewer people than this are not shown: they could tell who the people are.
SMALLEST_GROUP = 10

# Over how many days, up to one, the people who used a feature are counted.
SPANS = (1, 7, 28)

# How long a day is kept: 25 months, as long as the sums of use.
KEPT_FOR = timedelta(days=762)

# A period has fewer days, so each day has a bit of its own.
_BITS = 63


@dataclass(frozen=True, slots=True)
class Adoption:
    """How many people of an agency used a feature on a day, and within the 7 and the 28 days up to it.

    `first_uses` used it for the first time; `first_use_days` are the days since they got their seats, together.
    `never_used` have a seat and have not used it. None: not shown, because it is of few people.
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
        """From the seat to the first use, on average; None without a number of first uses that is shown."""
        return round(self.first_use_days / self.first_uses, 1) if self.first_uses else None

    def shown(self, seats: int) -> "Adoption":
        """Without the numbers that are of few people, where so many have a seat."""
        of_few = self.never_used is not None and not shows(seats - self.never_used)
        return replace(
            self,
            active=_shown(self.active, seats),
            active_7_days=_shown(self.active_7_days, seats),
            active_28_days=_shown(self.active_28_days, seats),
            first_uses=_shown(self.first_uses, seats),
            never_used=None if of_few else _shown(self.never_used, seats),
        )


def shows(number: int) -> bool:
    """Whether a number of people can be shown: none, or enough."""
    return number == 0 or number >= SMALLEST_GROUP


def _shown(number: int | None, seats: int) -> int | None:
    return number if number is not None and seats >= SMALLEST_GROUP and shows(number) else None


def bit_of(day: date) -> int:
    """The bit of a day."""
    return 1 << day.toordinal() % _BITS


def days_of(bits: int, first: date) -> Iterable[int]:
    """The days of bits, as ordinals, of a period that begins with a day."""
    start = first.toordinal()
    while bits:
        lowest = bits & -bits
        yield start + (lowest.bit_length() - 1 - start) % _BITS
        bits ^= lowest


def gains(used: Iterable[int], fresh: Iterable[int]) -> Counter[tuple[int, int]]:
    """By how many the people grow who are active, by day and span, if one uses a feature on days besides the others.

    Days are ordinals. A use counts on each day up to which it lies within the span, unless another use does there.
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

"""Adoption: what a use adds to each day's counters, and which numbers are shown."""

import random
from collections import Counter
from datetime import date

from muster_entitlements.domain.adoption import SPANS, Adoption, bit_of, days_of, gains, shows

DAY = date(2025, 11, 3)


def test_each_day_counts_who_used_it_within_the_span_however_late_a_use_arrives() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(200):
        days = [chance.randrange(1000, 1000 + chance.choice((5, 40, 90))) for _ in range(chance.randrange(1, 12))]
        counted: Counter[tuple[int, int]] = Counter()
        used: set[int] = set()
        while days:
            batch = [days.pop() for _ in range(chance.randrange(1, len(days) + 1))]
            counted += gains(used, batch)
            used.update(batch)
        expected = {(day + ahead, span) for day in used for span in SPANS for ahead in range(span)}
        assert counted == Counter(dict.fromkeys(expected, 1))


def test_the_days_of_a_period_are_kept_as_bits() -> None:
    for first in (DAY.toordinal() + ahead for ahead in range(63)):
        days = [first, first + 1, first + 30, first + 33]
        bits = 0
        for day in days:
            bits |= bit_of(date.fromordinal(day))
        assert 0 < bits < 2**63
        assert sorted(days_of(bits, date.fromordinal(first))) == days
        # The agency may since have enrolled in a time zone in which the period begins on another day.
        assert all(sorted(days_of(bits, date.fromordinal(first + ahead))) == days for ahead in (-2, 2))
    assert list(days_of(0, DAY)) == []


def test_numbers_of_fewer_than_ten_people_are_not_shown() -> None:
    adoption = Adoption("deep-research", DAY, 9, 10, 40, 0, 0, 60)
    shown = adoption.shown(100)
    assert (shown.active, shown.active_7_days, shown.active_28_days, shown.first_uses) == (None, 10, 40, 0)
    assert [adoption.shown(seats).never_used for seats in (100, 69, 70, 60)] == [60, None, 60, 60]
    few = adoption.shown(9)
    assert (few.active_7_days, few.active_28_days, few.first_uses, few.never_used) == (None, None, None, None)
    first = Adoption("deep-research", DAY, first_uses=12, first_use_days=30)
    assert (first.shown(100).days_to_first_use, first.shown(9).days_to_first_use) == (2.5, None)
    assert adoption.days_to_first_use is None


def test_numbers_that_show_fewer_than_ten_people_beside_another_are_not_shown() -> None:
    def numbers(seats: int, active: int, week: int, month: int, first: int, never_used: int) -> list[int | None]:
        shown = Adoption("deep-research", DAY, active, week, month, first, never_used=never_used).shown(seats)
        return [shown.active, shown.active_7_days, shown.active_28_days, shown.first_uses, shown.never_used]

    assert numbers(17, 0, 15, 15, 0, never_used=2) == [0, None, None, 0, None]
    assert numbers(17, 15, 15, 15, 15, never_used=2) == [None, None, None, None, None]
    assert numbers(100, 30, 35, 40, 20, never_used=60) == [30, None, 40, 20, 60]  # each beside the next that is shown
    assert numbers(100, 10, 10, 12, 10, never_used=88) == [None, None, 12, None, 88]
    assert numbers(100, 20, 20, 38, 18, never_used=60) == [20, 20, 38, None, None]  # two more have used it earlier
    assert numbers(100, 20, 20, 38, 10, never_used=64) == [20, 20, 38, 10, 64]  # two active people have no seat now


def test_no_difference_of_numbers_that_are_shown_is_fewer_than_ten_people() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(2_000):
        seats = chance.randrange(120)
        ever, month, week, active, first = sorted((chance.randrange(seats + 1) for _ in range(5)), reverse=True)
        whole = Adoption("deep-research", DAY, active, week, month, first, never_used=seats - ever)
        shown = whole.shown(seats)
        used = None if shown.never_used is None else seats - shown.never_used
        numbers = [shown.active, shown.active_7_days, shown.active_28_days, shown.first_uses, used]
        known = [number for number in numbers if number is not None]
        assert all(shows(abs(one - other)) for one in known for other in (0, seats, *known)), (seats, whole)

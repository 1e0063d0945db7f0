"""How the usage benchmark tells whether memory grows with the number of counted events."""

from tests.bench.usage import growth


def test_the_last_part_is_compared_with_the_first_whatever_came_between() -> None:
    measured = growth([200.0, 900.0, 150.0, 260.0])
    assert (measured.ours, measured.limit, measured.ratio) == (260.0, 200.0, 1.3)
    assert (measured.unit, measured.aim) == ("MiB", "at most 1.2 of it")

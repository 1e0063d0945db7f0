"""No tenant takes so much of a process that nothing is left for another."""

import pytest

from muster_runtime.errors import TooManyRequests
from muster_runtime.slots import Slots


def fill(slots: Slots, tenant: str, *, operator: bool = False) -> int:
    """Take one by one until refused; how many that were."""
    taken = 0
    while taken <= slots.total:
        try:
            slots.take(tenant, operator=operator)
        except TooManyRequests:
            return taken
        taken += 1
    raise AssertionError("more was given than there is")


def test_each_tenant_leaves_as_much_as_it_holds() -> None:
    slots = Slots(100, "places")
    held = [fill(slots, tenant) for tenant in ("EPA", "DOE", "NASA")]
    assert held[0] == 45  # half of what is not the operators'
    assert held[1] >= 20
    assert held[2] >= 10


def test_operators_find_room_when_agencies_have_taken_all() -> None:
    slots = Slots(100, "places")
    for number in range(200):
        fill(slots, f"A{number}")
    assert slots.is_full
    with pytest.raises(TooManyRequests, match="all 100 places of this process are in use"):
        slots.take("EPA")
    assert fill(slots, "*", operator=True) >= 5


def test_who_asks_first_learns_whether_they_fit() -> None:
    slots = Slots(10, "places")
    taken = 0
    while slots.fits("EPA"):
        slots.take("EPA")
        taken += 1
    assert 0 < taken == slots.used
    assert slots.fits("DOE")
    assert slots.fits("*", operator=True)
    with pytest.raises(TooManyRequests):
        slots.take("EPA")


def test_what_is_given_back_can_be_taken_again() -> None:
    slots = Slots(10, "places")
    taken = fill(slots, "EPA")
    with pytest.raises(TooManyRequests, match="you use"):
        slots.take("EPA")
    for _ in range(taken):
        slots.give_back("EPA")
    assert fill(slots, "DOE") == taken
    assert slots.used == taken


def test_a_process_of_one_place_serves() -> None:
    slots = Slots(1, "places")
    slots.take("EPA")
    slots.give_back("EPA")
    slots.take("DOE")

"""No tenant takes so many of a process's slots that none is left for another."""

import pytest

from muster_runtime.errors import TooManyRequests
from muster_runtime.slots import Slots


def fill(slots: Slots, tenant: str, *, operator: bool = False) -> int:
    """Take slots one by one until refused; return how many."""
    taken = 0
    while taken <= slots.total:
        try:
            slots.take(tenant, operator=operator)
        except TooManyRequests:
            return taken
        taken += 1
    raise AssertionError("more slots were given than exist")


def test_each_tenant_leaves_as_much_as_it_holds() -> None:
    slots = Slots(100, "places")
    held = [fill(slots, tenant) for tenant in ("EPA", "DOE", "NASA")]
    assert held[0] == 45  # half of the slots that are not reserved for operators
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


def test_a_tenant_can_ask_whether_it_fits_before_it_takes_a_slot() -> None:
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


def test_a_returned_slot_can_be_taken_again() -> None:
    slots = Slots(10, "places")
    taken = fill(slots, "EPA")
    with pytest.raises(TooManyRequests, match="you use"):
        slots.take("EPA")
    for _ in range(taken):
        slots.give_back("EPA")
    assert fill(slots, "DOE") == taken
    assert slots.used == taken


def test_a_process_with_one_slot_works() -> None:
    slots = Slots(1, "places")
    slots.take("EPA")
    slots.give_back("EPA")
    slots.take("DOE")

"""Long computations let the event loop continue."""

import asyncio
import time

from muster_runtime.pacing import SLICE_SECONDS, Pace
from tests.support.turns import counted_turns


async def test_other_tasks_run_between_two_slices() -> None:
    pace = Pace()
    until = time.monotonic() + 5000 * SLICE_SECONDS
    async with counted_turns() as turns:
        while turns() < 5 and time.monotonic() < until:
            await pace.keep()
    assert turns() >= 5


async def test_a_step_within_the_slice_costs_no_turn() -> None:
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1

    asyncio.get_running_loop().call_soon(count)
    await Pace().keep()
    assert turns == 0

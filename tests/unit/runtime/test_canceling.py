"""Duties that run together end together, each canceled once, even if one swallows a cancellation."""

import asyncio
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from muster_notify.workers.dispatcher import DRAIN_SECONDS
from muster_runtime.canceling import is_canceled, run_together
from muster_runtime.process.duties import ROUNDS_SECONDS


class Duty:
    """Takes many turns of the event loop to clean up; swallows this many cancellations."""

    def __init__(self, swallows: int = 0) -> None:
        self._swallows = swallows
        self.started = asyncio.Event()
        self.is_in_order = False

    async def run(self) -> None:
        self.started.set()
        for _ in range(self._swallows):
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(100):
                await asyncio.sleep(0)
            self.is_in_order = True


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_cancellation_reaches_each_duty_once() -> None:
    duty = Duty()
    together = asyncio.create_task(run_together(duty.run(), forever()))
    await duty.started.wait()
    together.cancel()
    with pytest.raises(asyncio.CancelledError):
        await together
    assert duty.is_in_order


async def test_the_next_cancellation_reaches_a_duty_that_swallowed_the_first() -> None:
    duty = Duty(swallows=1)
    together = asyncio.create_task(run_together(duty.run(), forever()))
    await duty.started.wait()
    while not together.done():
        together.cancel()
        await asyncio.wait([together], timeout=0.1)
    assert duty.is_in_order


async def test_an_error_of_a_duty_ends_the_others_and_is_raised() -> None:
    duty = Duty()

    async def fail() -> None:
        await duty.started.wait()
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        await run_together(duty.run(), fail())
    assert duty.is_in_order


async def test_if_two_duties_fail_one_error_is_raised_and_the_other_logged() -> None:
    both = asyncio.Barrier(2)

    async def fail(text: str) -> None:
        await both.wait()
        raise ValueError(text)

    with capture_logs() as logs, pytest.raises(ValueError, match=r"one|other") as raised:
        await run_together(fail("one"), fail("other"))
    logged = [str(entry["exc_info"]) for entry in logs if entry["event"] == "duty_failed"]
    assert sorted([*logged, str(raised.value)]) == ["one", "other"]


async def test_a_task_knows_that_it_was_canceled_even_if_an_error_replaced_the_cancellation() -> None:
    async def lose() -> bool:
        before = is_canceled()
        with suppress(OSError):
            try:
                await asyncio.Event().wait()
            finally:
                raise OSError("the connection is gone")
        return not before and is_canceled()

    task = asyncio.create_task(lose())
    await asyncio.sleep(0)
    task.cancel()
    assert await task


def test_a_dispatcher_ends_its_attempts_before_it_is_canceled_again() -> None:
    assert ROUNDS_SECONDS[0] - 1 >= DRAIN_SECONDS

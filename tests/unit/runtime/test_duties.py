"""The end of a process's duties, though a cancellation can be lost on its way."""

import asyncio
from contextlib import suppress

import pytest

from muster_runtime.process import duties as duties_
from muster_runtime.process.duties import Duties


async def loses_one_cancellation(started: asyncio.Event) -> None:
    """As Kafka's client does while it closes."""
    with suppress(asyncio.CancelledError):
        started.set()
        await asyncio.Event().wait()
    await asyncio.Event().wait()


async def test_a_duty_that_loses_a_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duties_, "ROUNDS_SECONDS", (0.2, 0.2))
    started = asyncio.Event()
    duties = Duties()
    duties.start("deaf", loses_one_cancellation(started))
    await started.wait()
    await duties.stop()
    assert all(task.cancelled() for task in duties._tasks)


async def test_a_duty_that_ends_by_a_cancellation_of_its_own_stops_the_process() -> None:
    """Nobody does its work any more."""

    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    duties = Duties()
    duties.start("relay", cancels_itself())
    with pytest.raises(RuntimeError, match="relay was canceled"):
        await duties.failed


async def test_a_process_without_duties_stops() -> None:
    await Duties().stop()

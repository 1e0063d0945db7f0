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


async def test_a_process_without_duties_stops() -> None:
    await Duties().stop()

"""The end of a process's duties, even though a cancellation can be lost."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from muster_runtime.process import duties as duties_
from muster_runtime.process.duties import Duties, DutyEnded


async def loses_one_cancellation(started: asyncio.Event) -> None:
    """Like Kafka's client while it closes."""
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


async def ends() -> None:
    """Like a duty that loses track of its work."""


async def cancels_itself() -> None:
    """Like Kafka's client, which raises the cancellation of its own task."""
    raise asyncio.CancelledError


@pytest.mark.parametrize("duty", [ends, cancels_itself])
async def test_a_duty_that_ends_by_itself_fails_the_process(duty: Callable[[], Coroutine[Any, Any, None]]) -> None:
    duties = Duties()
    duties.start("relay", duty())
    with pytest.raises(DutyEnded, match="the duty 'relay' ended, though nobody stopped it"):
        await asyncio.wait_for(duties.failed, 5)
    await duties.stop()


async def test_duties_that_are_stopped_have_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duties_, "ROUNDS_SECONDS", (0.2, 0.2))
    duties, started = Duties(), asyncio.Event()
    duties.start("relay", loses_one_cancellation(started))
    await started.wait()
    await duties.stop()
    assert not duties.failed.done()


async def test_a_process_without_duties_stops() -> None:
    await Duties().stop()

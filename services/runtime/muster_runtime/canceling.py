"""Helps tasks stop when they are canceled, even if what they await swallows the cancellation.

aiokafka's client does so while it closes; an error raised meanwhile replaces the cancellation.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

_log = structlog.get_logger(__name__)


def is_canceled() -> bool:
    """Whether the current task was canceled, even if nothing was raised."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def run_together(*duties: Coroutine[Any, Any, None]) -> None:
    """Run duties until the first one ends, then cancel the others. Raises its error, and logs the errors of the others.

    A cancellation of this task cancels every duty, even if the duty swallowed an earlier one. It cancels each only
    once: a second cancellation would end a duty before it has cleaned up.
    """
    tasks = [asyncio.create_task(duty) for duty in duties]
    first: BaseException | None = None
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        first = next((error for task in ended if not task.cancelled() and (error := task.exception())), None)
    finally:
        for task in tasks:
            task.cancel()
        for each in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(each, Exception) and each is not first:
                _log.error("duty_failed", exc_info=each)
    if first is not None:
        raise first

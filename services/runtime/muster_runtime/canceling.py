"""Tasks that stop when they are canceled, though what they await may swallow a cancellation.

aiokafka's client does so while it closes, and an error that is raised on the way takes the cancellation's place.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

_log = structlog.get_logger(__name__)


def is_canceled() -> bool:
    """Whether the present task was canceled, even if nothing was raised."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def run_together(*duties: Coroutine[Any, Any, None]) -> None:
    """Run duties until the first ends, and then cancel the others. Its error is raised; those of others are logged.

    Each cancellation reaches every duty, since one can be swallowed, and reaches it once: a second one would end a duty
    before it has put its things in order.
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

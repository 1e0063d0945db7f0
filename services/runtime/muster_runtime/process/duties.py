"""The background tasks of a process."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

# How long the duties may take to end after each cancellation: Kafka's client may swallow one. A server that hangs must
# not keep the process alive.
ROUNDS_SECONDS = (5.0, 1.0)

# How long the whole stop may take.
STOP_SECONDS = sum(ROUNDS_SECONDS)

_log = structlog.get_logger(__name__)


class DutyEnded(Exception):
    """A duty ended by itself, for example because Kafka's client raised a cancellation. Its work is no longer done."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the duty {name!r} ended, though nobody stopped it")


class Duties:
    """Tasks that run until the process stops. If one ends before that, `failed` completes with its error."""

    def __init__(self) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self, name: str, duty: Coroutine[Any, Any, None]) -> None:
        """Start a duty."""
        task = asyncio.create_task(duty, name=name)
        task.add_done_callback(self._on_done)
        self._tasks.append(task)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None and not self._stopping:
            error = DutyEnded(task.get_name())
        if error is not None:
            _log.error("duty_failed", duty=task.get_name(), exc_info=error)
            if not self.failed.done():
                self.failed.set_exception(error)

    async def stop(self) -> None:
        """Cancel all duties and wait for them to end; cancel again those that continue."""
        self._stopping = True
        left = {*self._tasks}
        for seconds in ROUNDS_SECONDS:
            for task in left:
                task.cancel()
            if left:
                _, left = await asyncio.wait(left, timeout=seconds)

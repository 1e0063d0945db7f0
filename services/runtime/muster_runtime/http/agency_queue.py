"""Queues commands per agency: only one at a time asks Postgres for the agency's lock; the others use no connection.

So a flood of requests for one agency does not take the connections that other agencies need.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from muster_runtime.errors import TooManyRequests

# How long a caller waits for its turn before it gets 503 with Retry-After.
QUEUE_SECONDS = 30


@dataclass(slots=True)
class _Queue:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    callers: int = 0


class AgencyQueue:
    """A process's queues, one per agency, each with at most `limit` callers."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queues: dict[str, _Queue] = {}

    @asynccontextmanager
    async def take(self, agency_id: str) -> AsyncIterator[None]:
        """Wait for the agency's turn, and keep it during the block.

        Raises TooManyRequests if the queue is full, and TimeoutError after QUEUE_SECONDS.
        """
        queue = self._queues.setdefault(agency_id, _Queue())
        if queue.callers >= self._limit:
            raise TooManyRequests(f"{self._limit} commands for {agency_id} are already waiting")
        queue.callers += 1
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                await queue.lock.acquire()
            try:
                yield
            finally:
                queue.lock.release()
        finally:
            queue.callers -= 1
            if not queue.callers:
                del self._queues[agency_id]

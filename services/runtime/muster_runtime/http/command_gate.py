"""Admits a command before it takes a connection to Postgres."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from muster_runtime.http.agency_queue import AgencyQueue
from muster_runtime.messaging.backlog import Backlog


class CommandGate:
    """Refuses commands while the outbox is full, and admits one command per agency at a time."""

    def __init__(self, queue: AgencyQueue, backlog: Backlog) -> None:
        self._queue = queue
        self._backlog = backlog

    @asynccontextmanager
    async def turn(self, agencies: Sequence[str]) -> AsyncIterator[None]:
        """Wait for the turn of a command that changes these agencies, and keep it during the block.

        Raises TooManyRequests if a limit is reached, and TimeoutError if the turn does not come in time.
        """
        self._backlog.admit()
        if len(agencies) != 1:
            yield
            return
        async with self._queue.take(agencies[0]):
            yield

"""Limits how many connections one tenant's reads hold, so that slow ones leave some for the other tenants."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from muster_runtime.database.transactions import ACQUIRE_SECONDS, EVERY_AGENCY


class ReadShares:
    """Lets each tenant's reads hold a third of a pool's `connections` at once, and the program's two thirds."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._tenants: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, tenant: str) -> AsyncIterator[None]:
        """Wait until the tenant may hold one more connection, and count it during the block.

        Raises TimeoutError after ACQUIRE_SECONDS.
        """
        thirds = 2 if tenant == EVERY_AGENCY else 1
        free = self._tenants.setdefault(tenant, asyncio.Semaphore(max(1, self._connections * thirds // 3)))
        async with asyncio.timeout(ACQUIRE_SECONDS):
            await free.acquire()
        try:
            yield
        finally:
            free.release()

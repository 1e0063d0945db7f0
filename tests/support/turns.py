"""Counts the turns of the event loop while other code computes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


@asynccontextmanager
async def counted_turns() -> AsyncIterator[Callable[[], int]]:
    """Take a turn of the event loop whenever possible, until the block ends; yield a function that counts them."""
    turns = 0

    async def take() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(take())
    yield lambda: turns
    task.cancel()

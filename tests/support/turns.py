"""How often the event loop comes round while something else computes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


@asynccontextmanager
async def counted_turns() -> AsyncIterator[Callable[[], int]]:
    """Take a turn whenever the loop gives one, until the block ends; answers how many there have been."""
    turns = 0

    async def take() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(take())
    yield lambda: turns
    task.cancel()

"""A process whose threads, connections, places, and Kafka are all taken is still alive."""

import asyncio
import threading
from contextlib import AsyncExitStack

from anyio.to_thread import current_default_thread_limiter

from muster_runtime.settings import Settings
from tests.integration.runtime.core.probe.service import build
from tests.support.services import ServiceRunner

# More than the loop's own threads, whatever the machine.
THREADS = 64

# An idle machine needs a hundredth of it.
PROMPT_SECONDS = 1.0


async def test_liveness_asks_the_event_loop_and_nothing_else(run_service: ServiceRunner) -> None:
    probe = await run_service(build, Settings)
    release = threading.Event()
    taken = [asyncio.get_running_loop().run_in_executor(None, release.wait) for _ in range(THREADS)]
    limiter = current_default_thread_limiter()
    tokens = limiter.total_tokens
    limiter.total_tokens = 0
    try:
        async with AsyncExitStack() as held:
            for database in (probe.runtime.database, probe.process.app.state.database):
                for _ in range(database.pool.get_max_size()):
                    await held.enter_async_context(database.pool.acquire())
            looking = asyncio.create_task(probe.client.get("/health/ready"))
            async with asyncio.timeout(PROMPT_SECONDS):
                assert (await probe.client.get("/health/live")).status_code == 200
            assert (await looking).status_code == 200  # it opens a connection for the purpose
    finally:
        limiter.total_tokens = tokens
        release.set()
        await asyncio.gather(*taken)

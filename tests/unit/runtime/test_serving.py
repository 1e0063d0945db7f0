"""A signal ends a start that waits, and everything that the start has begun."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

import pytest

from muster_runtime.process.running import Process
from muster_runtime.process.serving import _started


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_a_start_that_waits_for_a_server(signal_: signal.Signals) -> None:
    steps = []

    @asynccontextmanager
    async def starting() -> AsyncIterator[Process]:
        steps.append("begun")
        try:
            os.kill(os.getpid(), signal_)
            await asyncio.Event().wait()
            yield cast("Process", None)
        finally:
            steps.append("undone")

    async with asyncio.timeout(20), AsyncExitStack() as stack:
        assert await _started(stack, starting(), asyncio.Event()) is None
    assert steps == ["begun", "undone"]


async def test_a_signal_after_the_start_is_noted() -> None:
    process, stopped = cast("Process", object()), asyncio.Event()

    @asynccontextmanager
    async def starting() -> AsyncIterator[Process]:
        yield process

    async with asyncio.timeout(20), AsyncExitStack() as stack:
        assert await _started(stack, starting(), stopped) is process
        os.kill(os.getpid(), signal.SIGTERM)
        await stopped.wait()


async def test_a_start_that_fails_by_itself_says_why() -> None:
    @asynccontextmanager
    async def starting() -> AsyncIterator[Process]:
        raise TimeoutError("a server did not answer")
        yield

    async with AsyncExitStack() as stack:
        with pytest.raises(TimeoutError, match="a server did not answer"):
            await _started(stack, starting(), asyncio.Event())

"""Waiting for what must come true: polling to a deadline, never a fixed sleep."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

_PAUSE_SECONDS = 0.02


async def eventually(check: Callable[[], Any], timeout: float = 15.0) -> Any:
    """Call `check`, plain or async, until it answers something truthy without an AssertionError; answer that.

    At the deadline the last AssertionError is raised, or one that shows the last answer.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            answer = check()
            if inspect.isawaitable(answer):
                answer = await answer
            if answer:
                return answer
            failure = AssertionError(f"not so after {timeout} s; the last answer was {answer!r}")
        except AssertionError as error:
            failure = error
        if time.monotonic() > deadline:
            raise failure
        await asyncio.sleep(_PAUSE_SECONDS)

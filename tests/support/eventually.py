"""Waits for a condition: polls until a deadline, with no fixed sleep."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

_PAUSE_SECONDS = 0.02


async def eventually(check: Callable[[], Any], timeout: float = 15.0) -> Any:
    """Call `check`, sync or async, until it returns a truthy value without an AssertionError; return that value.

    After `timeout` seconds, raises the last AssertionError, or one that shows the last value.
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

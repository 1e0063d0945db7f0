"""Waits for a condition: polls until a deadline, with no fixed sleep."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.25


async def eventually(
    check: Callable[..., Any],
    timeout: float = 15.0,
    *,
    prompt: bool = False,
    longest_pause: float = _LONGEST_PAUSE_SECONDS,
) -> Any:
    """Call `check`, sync or async, until it returns a truthy value without an AssertionError; return that value.

    After `timeout` seconds, raises the last AssertionError, or one that shows the last value. The pause between two
    checks is a tenth of the time waited so far, so that a long wait leaves the CPU to what it waits for, but at most
    `longest_pause` seconds. With `prompt`, it is always short: for what must be noticed at once.
    """
    started = time.monotonic()
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
        waited = time.monotonic() - started
        if waited > timeout:
            raise failure
        pause = _PAUSE_SECONDS if prompt else min(max(waited / 10, _PAUSE_SECONDS), longest_pause)
        await asyncio.sleep(pause)

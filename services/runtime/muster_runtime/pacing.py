"""Lets a long computation yield to others in the same event loop, by elapsed time rather than by the work done."""

import asyncio
import time

# The longest slice. Another agency's command returns to the loop about ten times, and may wait this long each time.
SLICE_SECONDS = 0.002


class Pace:
    """The pace of one long computation: call `await pace.keep()` at every step, however small."""

    def __init__(self) -> None:
        self._until = time.monotonic() + SLICE_SECONDS

    async def keep(self) -> None:
        """Yield to the event loop if this computation has used up its slice. Costs a tenth of a microsecond."""
        if time.monotonic() >= self._until:
            await asyncio.sleep(0)
            self._until = time.monotonic() + SLICE_SECONDS

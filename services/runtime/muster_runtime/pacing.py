"""Long computing in an event loop that others share: it lets them go on by time, and not by how much it has done."""

import asyncio
import time

# A command of another agency comes back to the loop some ten times: it may find this much computing each time.
SLICE_SECONDS = 0.002


class Pace:
    """The pace of one long computation: `await pace.keep()` at every step of it, however small."""

    def __init__(self) -> None:
        self._until = time.monotonic() + SLICE_SECONDS

    async def keep(self) -> None:
        """Let the loop do what waits, where this computation has had its slice. Costs a tenth of a microsecond."""
        if time.monotonic() >= self._until:
            await asyncio.sleep(0)
            self._until = time.monotonic() + SLICE_SECONDS

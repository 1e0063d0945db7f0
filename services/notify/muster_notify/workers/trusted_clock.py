"""Whether the database will record what this process dates: a delivery that it cannot record is sent again."""

import time

from muster_runtime.clock import MAX_SKEW
from muster_runtime.database.locks import ask_for_skew
from muster_runtime.messaging.lease import LEASE_SECONDS
from muster_runtime.service import Runtime

# How long after a refusal the clock is checked again: by then, another process has taken the lease.
REST_SECONDS = 2 * LEASE_SECONDS


class TrustedClock:
    """The process's clock, trusted once the database's agrees with it, until the database refuses a write for it."""

    def __init__(self) -> None:
        self._trusted = False
        self._check_at = 0.0

    async def is_trusted(self, runtime: Runtime) -> bool:
        """Whether to send. The check allows half the skew that a write may have, so that whoever passes can write."""
        if not self._trusted and time.monotonic() >= (check_at := self._check_at):
            async with runtime.database.connection() as connection:
                agrees = await ask_for_skew(connection, runtime.clock, MAX_SKEW / 2) is None
            self._trusted = agrees and self._check_at == check_at  # a lane may have been refused meanwhile
        return self._trusted

    def refused(self) -> None:
        """Note that the database has refused a write for this process's clock."""
        self._trusted = False
        self._check_at = time.monotonic() + REST_SECONDS

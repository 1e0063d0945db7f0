"""Checks that the database will record what this process dates: a delivery that is not recorded is sent again."""

import time
from collections.abc import Sequence

from muster_runtime.clock import MAX_SKEW
from muster_runtime.database.locks import ask_for_skew
from muster_runtime.messaging.lease import LEASE_SECONDS
from muster_runtime.service import Runtime

# How often the clock is compared with the database's.
CHECK_SECONDS = LEASE_SECONDS

# How long after a refusal the clock is not compared: by then, another process has taken the lease.
REST_SECONDS = 2 * LEASE_SECONDS

# How long after a refusal the clocks may differ only half as much: a slow reply hides part of a skew.
STRICT_SECONDS = 600.0


class TrustedClock:
    """The process's clock, trusted while it agrees with the database's and no write was refused because of it."""

    def __init__(self) -> None:
        self._disagreement: str | None = None
        self._check_at = 0.0
        self._strict_until = 0.0

    @property
    def warnings(self) -> Sequence[str]:
        """Human-readable reasons why nothing is sent."""
        return [f"no delivery is sent: {self._disagreement}"] if self._disagreement else []

    async def is_trusted(self, runtime: Runtime) -> bool:
        """Whether to send."""
        now = time.monotonic()
        if now >= (check_at := self._check_at):
            limit = MAX_SKEW / 2 if now < self._strict_until else MAX_SKEW
            async with runtime.database.connection() as connection:
                found = await ask_for_skew(connection, runtime.clock, limit)
            if self._check_at == check_at:  # otherwise, a write was refused meanwhile
                self._disagreement, self._check_at = found, now + CHECK_SECONDS
        return self._disagreement is None

    def refuse(self, disagreement: str) -> None:
        """Stop trusting the clock, because the database has refused a write because of it."""
        now = time.monotonic()
        self._disagreement, self._check_at, self._strict_until = disagreement, now + REST_SECONDS, now + STRICT_SECONDS

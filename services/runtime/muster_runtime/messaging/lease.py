"""A lease: one process leads in a duty. It saves the others work; correctness never depends on it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from muster_runtime.database import repeatable
from muster_runtime.database.transactions import RETRYABLE, Database

# The duties of a relay's lanes.
RELAY, RELAY_COMPACTED = "relay", "relay-compacted"

# How long a lease lasts. A process that dies keeps it until then.
LEASE_SECONDS = 3.0

# How often the holder renews a lease, and other processes try to take it. The holder's event loop may be blocked for
# LEASE_SECONDS minus this.
RENEW_SECONDS = 0.5

# How long a holder may work without calling `take`. The first batch over a slow network takes longer than a lease
# lasts, but a holder that cannot do its work must leave it to another process.
WORK_SECONDS = 15.0

# How long giving a lease back may take: it expires after LEASE_SECONDS anyway.
RELEASE_SECONDS = 2.0

# Uses the database's clock, so the holders' clocks need not agree; no fact depends on it. If that clock was ahead and
# is set back, an expiry can be further away than any lease lasts: such a lease is void.
_TAKE = """
insert into lease as held (duty, holder, expires_at)
values ($1, $2, clock_timestamp() + make_interval(secs => $3))
on conflict (duty) do update set holder = excluded.holder, expires_at = excluded.expires_at
where
    held.holder = excluded.holder
    or held.expires_at not between clock_timestamp() and clock_timestamp() + make_interval(secs => $3)
returning holder
"""

# Wakes the processes that wait for the lease.
_RELEASE = """
with freed as (delete from lease where duty = $1 and holder = $2 returning duty)
select pg_notify('muster_wake', current_schema()) from freed
"""


class Lease:
    """One process's claim to lead in a duty."""

    def __init__(self, database: Database, duty: str, holder: str) -> None:
        self._database = database
        self._duty = duty
        self._holder = holder
        self._held_until = 0.0
        self._may_hold = False  # the table may say so, if an answer was lost
        self._asked_at = 0.0

    @property
    def is_held(self) -> bool:
        """Whether this process led when it last asked, and its lease has not expired since."""
        return self.seconds_left > 0

    @property
    def seconds_left(self) -> float:
        """How long this process still leads if it never asks again."""
        return max(0.0, self._held_until - time.monotonic())

    async def take(self) -> bool:
        """Take the lease for LEASE_SECONDS, or renew it after RENEW_SECONDS.

        Returns False while another process leads.
        """
        self._asked_at = now = time.monotonic()
        return now < self._held_until - LEASE_SECONDS + RENEW_SECONDS or await self._ask(now)

    @asynccontextmanager
    async def renewed(self) -> AsyncIterator[None]:
        """Renew the lease while the block runs, for at most WORK_SECONDS after the last `take`."""
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])

    async def _renew(self) -> None:
        with suppress(*RETRYABLE):  # the holder finds out at its next `take`
            while True:
                await asyncio.sleep(RENEW_SECONDS)
                now = time.monotonic()
                if now > self._asked_at + WORK_SECONDS or not await self._ask(now):
                    return

    async def _ask(self, now: float) -> bool:
        self._may_hold = True  # until the answer arrives: a cancellation can lose it
        taken = bool(await repeatable.fetch(self._database, _TAKE, self._duty, self._holder, LEASE_SECONDS))
        self._may_hold = taken
        self._held_until = now + LEASE_SECONDS if taken else 0.0
        return taken

    async def release(self) -> None:
        """Give up the lease, so that another process can take it at once: that one may succeed.

        Raises no error. If it is canceled or the database is unreachable, call it again.
        """
        self._held_until = 0.0
        if self._may_hold:
            with suppress(*RETRYABLE):
                # After the timeout, the pool waits that long again to take the connection back.
                acquired = self._database.pool.acquire(timeout=RELEASE_SECONDS)
                async with asyncio.timeout(RELEASE_SECONDS), acquired as connection:
                    await connection.execute(_RELEASE, self._duty, self._holder)
                self._may_hold = False

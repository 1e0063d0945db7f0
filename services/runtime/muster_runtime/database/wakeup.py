"""Wakes a waiting duty: at a commit in its schema, a move of the clock, or the instant it waits for."""

import asyncio
from contextlib import suppress
from datetime import datetime
from typing import Any

import asyncpg
import structlog
from pydantic import SecretStr

from muster_runtime.clock import Clock
from muster_runtime.database.outbox import WAKE_CHANNEL
from muster_runtime.database.sessions import Address, keep_alive

# Every duty looks for work at least this often, because a notification can be lost.
POLL_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class Wakeup:
    """Wakes one duty. A wake-up between the duty's search for work and its wait is not lost."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Wake the duty, now or at its next wait."""
        self._woken.set()

    async def wait(self, until: datetime | None = None) -> None:
        """Return at `until` by the runtime's clock, when woken, or after POLL_SECONDS at the latest."""
        seconds = POLL_SECONDS
        if until is not None:
            seconds = min(seconds, max(0.0, (until - self._clock.now()).total_seconds()))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()


class WakeupListener:
    """Wakes every duty of a process when a transaction in the schema has committed work for it."""

    def __init__(self, dsn: SecretStr | str, schema: str, clock: Clock) -> None:
        self._address = Address(dsn)
        self._schema = schema
        self._clock = clock
        self._wakeups: list[Wakeup] = []

    def wakeup(self) -> Wakeup:
        """Create a wakeup for another duty."""
        wakeup = Wakeup(self._clock)
        self._wakeups.append(wakeup)
        return wakeup

    def wake(self) -> None:
        """Wake every duty of the process."""
        for wakeup in self._wakeups:
            wakeup.wake()

    async def run(self) -> None:
        """Listen until canceled. After a lost connection, reconnect and wake every duty."""
        while True:
            try:
                await self._listen()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _log.warning("wakeup_listener_lost", error=str(error))
            await asyncio.sleep(1)

    async def _listen(self) -> None:
        connection = await self._address.connect(server_settings={"application_name": f"muster-{self._schema}-wakeup"})
        keep_alive(connection)
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.add_listener(WAKE_CHANNEL, self._on_notification)
            self.wake()
            await lost.wait()
        finally:
            await connection.close(timeout=2)

    def _on_notification(self, _connection: Any, _pid: int, _channel: str, payload: Any) -> None:
        if payload == self._schema:
            self.wake()

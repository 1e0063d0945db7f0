"""The relay while others write: its CPU per event must stay the same, even while a snapshot is held open.

An old snapshot keeps deleted rows from being vacuumed. An outbox with a row per event then gets slower with
every event.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg

from muster_runtime.clock import SystemClock
from muster_runtime.database.wakeup import WakeupListener
from tests.bench.report import Measurement, say
from tests.bench.setting import Setting, setting

# Below what the relay can do, so that the outbox stays short.
EVENTS_PER_SECOND = 40_000

# Events of a transaction.
RUN = 100

STEPS = 20


async def measure(events: int) -> list[Measurement]:
    """Relay this many events as they are written, without and with a snapshot held open throughout."""
    measurements = []
    for held in (False, True):
        async with setting() as own, _snapshot(own, held):
            points = await _relay_steadily(own, events, EVENTS_PER_SECOND, RUN)
        first, last = points[0][1], points[-1][1]
        name = "relay, a snapshot held open" if held else "relay, steadily written to"
        measurements.append(
            Measurement(
                name,
                last,
                first,
                "µs CPU/event",
                "within 1.3 of the first",
                over="events relayed",
                points=tuple(points),
            )
        )
    return measurements


@asynccontextmanager
async def _snapshot(own: Setting, held: bool) -> AsyncIterator[None]:
    """Somebody else's transaction that has begun to read, and does not end."""
    connection = await asyncpg.connect(own.access.admin_dsn)
    if held:
        await connection.execute("begin isolation level repeatable read")
        await connection.execute("select count(*) from pg_class")
    yield
    await connection.close()


class _Cpu:
    """CPU seconds of this process and of the Postgres backends that it uses."""

    def __init__(self, admin: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._admin = admin
        self._backends: dict[int, float] = {}

    async def seconds(self) -> float:
        rows = await self._admin.fetch(
            """
            select pid
            from pg_stat_activity
            where datname = current_database() and application_name like 'muster-%'
            """
        )
        for row in rows:
            # In nanoseconds; the times of /proc/<pid>/stat come in hundredths of a second.
            with suppress(FileNotFoundError):
                text = Path(f"/proc/{row['pid']}/schedstat").read_text("ascii")
                self._backends[row["pid"]] = int(text.split()[0]) / 1e9
        return time.process_time() + sum(self._backends.values())


async def _relay_steadily(own: Setting, events: int, per_second: int, run: int) -> list[tuple[float, float]]:
    """Events relayed so far, and the CPU microseconds per event since the previous point: one point per twentieth."""
    listener = WakeupListener(own.access.worker_dsn, "entitlements", SystemClock())
    relay = own.relay(listener.wakeup)
    duties = [asyncio.create_task(listener.run()), asyncio.create_task(relay.run())]
    admin = await asyncpg.connect(own.access.admin_dsn)
    cpu = _Cpu(admin)
    arguments = [own.access.worker_dsn, str(events), str(per_second), str(run)]
    writer = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.bench.writer", *arguments)
    points: list[tuple[float, float]] = []
    seconds, relayed = await cpu.seconds(), 0
    while relayed < events:
        while relay.relayed < min(events, relayed + events // STEPS):
            await asyncio.sleep(0.01)
        seconds_now, relayed_now = await cpu.seconds(), relay.relayed
        points.append((relayed_now, (seconds_now - seconds) / (relayed_now - relayed) * 1e6))
        seconds, relayed = seconds_now, relayed_now
        say(f"steady: {relayed:,} events, {points[-1][1]:.2f} µs each")
    await writer.wait()
    for duty in duties:
        duty.cancel()
    await asyncio.gather(*duties, return_exceptions=True)
    await admin.close()
    return points

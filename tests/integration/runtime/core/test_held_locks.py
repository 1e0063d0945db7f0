"""Agencies whose locks are held elsewhere: the consumer waits for each in turn, so that a busy one is not starved."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg

from muster_contracts.entitlements import SeatAssigned
from muster_contracts.testing import record
from muster_runtime.database.transactions import Database
from muster_runtime.messaging.applier import Applier
from muster_runtime.messaging.record_reader import Record
from muster_runtime.messaging.subscriptions import Subscriptions
from tests.integration.runtime.core.probe.service import keep_seats
from tests.support.limits import LIMITS
from tests.support.services import RunningService

NOON = datetime(2025, 8, 6, 12, tzinfo=UTC)

# How long each transaction of a busy agency holds its lock, and how many callers want it: a caller that waits 0.1 s for
# it never gets it.
BUSY_SECONDS = 0.15
CALLERS = 3


async def test_busy_agencies_have_their_turn_though_anothers_lock_is_held_for_long(idle_probe: RunningService) -> None:
    database = await Database(idle_probe.access.worker_dsn, "probe", idle_probe.clock, lock_timeout_seconds=1).open()
    subscriptions = Subscriptions({SeatAssigned: keep_seats}, service="probe", group="probe", clock=database.clock)
    applier = Applier(database, subscriptions, LIMITS)
    waiting = {"EPA", "NASA", "DOE"}
    async with busy(idle_probe, "NASA"), busy(idle_probe, "DOE"), idle_probe.admin.transaction():
        await idle_probe.admin.execute("select lock_agencies('{EPA}')")
        for _ in range(4):  # the first finds out, the next waits for EPA, the third for the others; one is spare
            waiting = {stream.agency_id for stream in await applier.apply([first(name) for name in sorted(waiting)])}
            if waiting == {"EPA"}:
                break
    assert waiting == {"EPA"}
    assert await applier.apply([first("EPA")]) == []
    await database.close()
    assert await idle_probe.admin.fetch("select agency_id, sequence from effect order by agency_id") == [
        (name, 1) for name in ("DOE", "EPA", "NASA")
    ]


@asynccontextmanager
async def busy(service: RunningService, agency_id: str, callers: int = CALLERS) -> AsyncIterator[None]:
    """Callers pass an agency's lock to one another until the block ends, so that it is never free."""

    async def call(connection: "asyncpg.Connection[Any]") -> None:
        while True:
            await connection.execute(f"select lock_agencies('{{{agency_id}}}'), pg_sleep({BUSY_SECONDS})")

    calls = []
    schema = {"search_path": service.runtime.service.name}
    async with AsyncExitStack() as stack:
        for _ in range(callers):
            connection = await asyncpg.connect(service.access.admin_dsn, server_settings=schema)
            stack.callback(connection.terminate)
            calls.append(asyncio.create_task(call(connection)))
        yield
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


def first(agency_id: str) -> Record:
    """The first record of an agency's stream."""
    event = SeatAssigned(agency_id=agency_id, seat_id="a", subject_ref="sub_1")
    made = record(event, sequence=1, time=NOON)
    return Record(made.topic, agency_id, 0, 0, made.key, made.value, made.headers)

"""The state that the coordinator of the sandbox's clock reads from each process."""

import asyncio

from muster_runtime.errors import rfc3339
from muster_runtime.process.monitor import PATIENCE_SECONDS
from muster_runtime.process.parts import WatchedDuties
from muster_runtime.scheduling import hold
from muster_runtime.scheduling.deadlines import next_due
from muster_runtime.service import Runtime


async def read_sandbox_state(runtime: Runtime, duties: WatchedDuties) -> dict[str, object]:
    """What has happened, what is due next, and what is still on its way. `activity` grows with everything done."""
    async with runtime.database.connection() as connection:
        (written,) = await connection.fetch(
            "select (select count(*) from outbox) as outbox, (select max(latest) from agency_instant) as latest"
        )
        held_since = await hold.held_since(connection)
        due = [
            duties.sealer.due_since if duties.sealer else None,
            await next_due(connection),
            *[await worker.next_due(connection) for worker in runtime.service.workers if worker.next_due],
        ]
    async with asyncio.timeout(PATIENCE_SECONDS):
        lag = await duties.lag() + await duties.intake_lag(runtime)
    return {
        "service": runtime.service.name,
        "instance": runtime.settings.instance,
        "now": rfc3339(runtime.clock.now()),
        "latest": written["latest"],
        "next_due": min((d for d in due if d is not None), default=None),
        "deadlines_held_since": held_since,
        "outbox": written["outbox"],
        "lag": lag,
        "activity": duties.activity,
    }

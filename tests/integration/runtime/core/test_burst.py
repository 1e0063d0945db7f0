"""A burst of one agency: the other agencies of its service continue, and those of its partition wait for it."""

import asyncio
import os
import time

import pytest

from tests.integration.runtime.core.conftest import ProbeStarter
from tests.integration.runtime.core.relays import burst, partition, write
from tests.support.eventually import eventually
from tests.support.services import RunningService

pytestmark = pytest.mark.alone

# Short in `make test`; with a million it takes a minute.
BURST = int(os.environ.get("MUSTER_TEST_BURST", "50000"))

BUSY = "A0"
BESIDE = next(name for name in ("A1", "A2", "A3", "A4") if partition(name) == partition(BUSY))
ELSEWHERE = next(name for name in ("A1", "A2", "A3", "A4") if partition(name) != partition(BUSY))


async def test_a_burst_of_one_agency_is_applied_in_order_and_others_go_on(
    idle_probe: RunningService, probe_process: ProbeStarter
) -> None:
    await probe_process("relay", "consumer")
    for agency_id in (BUSY, BESIDE, ELSEWHERE):
        await delay(idle_probe, agency_id)
    committed = asyncio.create_task(burst(idle_probe, BUSY, BURST))
    delays: dict[str, list[float]] = {BESIDE: [], ELSEWHERE: []}
    left: dict[str, int] = {}

    async def keep_on(agency_id: str) -> None:
        while not await is_applied(idle_probe, BUSY):
            delays[agency_id].append(await delay(idle_probe, agency_id))
            left.setdefault(agency_id, await waiting(idle_probe, BUSY))

    await committed
    began = time.monotonic()
    await asyncio.gather(keep_on(BESIDE), keep_on(ELSEWHERE))
    took = time.monotonic() - began
    for where, agency_id in (("its partition", BESIDE), ("the service", ELSEWHERE)):
        seconds = sorted(delays[agency_id])
        print(f"others of {where}: {len(seconds)}, median {seconds[len(seconds) // 2]:.3f} s, most {seconds[-1]:.3f} s")
    print(f"{BURST:,} events applied in {took:.1f} s")
    assert left[ELSEWHERE] > BURST / 2
    disorder = await idle_probe.admin.fetchval(
        """
        select count(*)
        from (
            select sequence - lag(sequence, 1, 0::bigint) over (partition by agency_id order by id) as step
            from effect
        ) as steps
        where step <> 1
        """
    )
    assert disorder == 0


async def delay(probe: RunningService, agency_id: str) -> float:
    """Write an event, and return the seconds from its commit to its effect."""
    await write(probe, agency_id, "quick")
    committed = time.monotonic()
    await eventually(lambda: is_applied(probe, agency_id), timeout=60 + BURST / 1_000)
    return time.monotonic() - committed


async def is_applied(probe: RunningService, agency_id: str) -> bool:
    return await waiting(probe, agency_id) == 0


async def waiting(probe: RunningService, agency_id: str) -> int:
    """How many events of an agency are not applied yet."""
    events: int = await probe.runtime.database.pool.fetchval(
        """
        select s.last_sequence - coalesce(a.last_sequence, 0)
        from probe.stream as s
        left join probe.applied as a using (topic, agency_id)
        where s.agency_id = $1
        """,
        agency_id,
    )
    return events

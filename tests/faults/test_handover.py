"""A process that is killed or replaced hands its work over: how long its agencies wait for their effects."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.faults.field import Field
from tests.faults.findings import Findings
from tests.faults.servers import Process
from tests.support.eventually import eventually

# Enough of them to have some in every partition.
AGENCIES = [f"A{number:02}" for number in range(24)]

COMMANDS_PER_SECOND = 40

# How long any effect may take, with room for a busy machine. By the client's own defaults a killed member holds its
# partitions for 10 s, and one that leaves is noticed within 3 s.
KILLED_SECONDS = 7
REPLACED_SECONDS = 2.5

KILLS = 2
REPLACEMENTS = 4


async def test_41_what_a_killed_process_held_is_taken_over_within_seconds(field: Field, findings: Findings) -> None:
    await field.serve()
    replicas = [replica(field) for _ in range(2)]
    await field.ready(*replicas)
    async with steady_traffic(field):
        for _ in range(KILLS):
            replicas.pop(0).kill()
            await until_all_is_applied(field)
            replicas.append(replica(field))
            await field.ready(*replicas)
        findings.fault_is_over()
    await field.at_rest()
    slowest, seen = await effects_took(field)
    findings.recovered(f"killed {KILLS} times: {seen}")
    assert slowest < KILLED_SECONDS
    assert await field.differences() == []


async def test_42_a_process_that_is_replaced_leaves_nobody_waiting(field: Field, findings: Findings) -> None:
    await field.serve()
    replicas = [replica(field) for _ in range(2)]
    await field.ready(*replicas)
    async with steady_traffic(field):
        for _ in range(REPLACEMENTS):
            replicas.append(replica(field))
            await field.ready(*replicas)
            await asyncio.to_thread(replicas.pop(0).stop)
            await until_all_is_applied(field)
        findings.fault_is_over()
    await field.at_rest()
    slowest, seen = await effects_took(field)
    findings.recovered(f"replaced {REPLACEMENTS} times: {seen}")
    assert slowest < REPLACED_SECONDS
    assert await field.differences() == []


def replica(field: Field) -> Process:
    """A process that does everything but answer commands."""
    return field.start("relay", "consumer", "scheduler")


@asynccontextmanager
async def steady_traffic(field: Field) -> AsyncIterator[None]:
    """Send one agency's command after another's, at a steady rate, whether or not earlier ones are answered."""
    over = asyncio.Event()

    async def send() -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as commands:
            number = 0
            while not over.is_set():
                agency_id = AGENCIES[number % len(AGENCIES)]
                commands.create_task(field.assign_seats(agency_id, f"seat-{number}"))
                number += 1
                await asyncio.sleep(began + number / COMMANDS_PER_SECOND - time.monotonic())

    traffic = asyncio.create_task(send())
    try:
        yield
    finally:
        over.set()
        await traffic


async def until_all_is_applied(field: Field) -> None:
    """Wait until all that was commanded before now has its effect."""
    now = await field.admin.fetchval("select clock_timestamp()")

    async def applied() -> bool:
        waiting = await field.admin.fetchval(
            """
            select count(*)
            from seat as s
            where s.written_at < $1 and not exists (
                select from effect as e where e.agency_id = s.agency_id and e.seat_id = s.seat_id
            )
            """,
            now,
        )
        assert not waiting, f"{waiting} seats without an effect"
        return True

    await eventually(applied, timeout=60)


async def effects_took(field: Field) -> tuple[float, str]:
    """The longest time from a command to its effect, and how long they took, in words."""
    row = await field.admin.fetchrow(
        """
        select
            count(*), max(took), percentile_cont(0.5) within group (order by took) as half,
            percentile_cont(0.99) within group (order by took) as most
        from (
            select extract(epoch from e.written_at - s.written_at)::double precision as took
            from seat as s
            join effect as e using (agency_id, seat_id)
        ) as effects
        """
    )
    assert row is not None
    return row["max"], (
        f"of {row['count']} effects, half within {row['half']:.3f} s, 99% within {row['most']:.2f} s, "
        f"the slowest {row['max']:.2f} s"
    )

"""AgencyQueue: one caller per agency at a time, a bounded queue, and nothing left behind."""

import asyncio

import pytest

from muster_runtime.errors import TooManyRequests
from muster_runtime.http.agency_queue import AgencyQueue


async def test_callers_of_one_agency_take_turns_in_order_and_others_do_not_wait() -> None:
    agency_queue = AgencyQueue(10)
    entered: list[str] = []
    leave = asyncio.Event()

    async def caller(agency_id: str, name: str) -> None:
        async with agency_queue.take(agency_id):
            entered.append(name)
            await leave.wait()

    callers = [asyncio.create_task(caller("NASA", str(number))) for number in range(3)]
    callers.append(asyncio.create_task(caller("DOE", "other")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert entered == ["0", "other"]
    leave.set()
    await asyncio.gather(*callers)
    assert entered == ["0", "other", "1", "2"]
    assert agency_queue._queues == {}


async def test_a_full_queue_refuses_and_a_caller_that_gives_up_makes_room() -> None:
    agency_queue = AgencyQueue(2)
    async with agency_queue.take("NASA"):
        waiting = asyncio.create_task(_take(agency_queue, "NASA"))
        await asyncio.sleep(0)
        with pytest.raises(TooManyRequests, match="2 commands for NASA are already waiting"):
            await _take(agency_queue, "NASA")
        await _take(agency_queue, "DOE")
        waiting.cancel()
        await asyncio.wait([waiting])
        following = asyncio.create_task(_take(agency_queue, "NASA"))
        await asyncio.sleep(0)
    await following
    assert agency_queue._queues == {}


async def _take(agency_queue: AgencyQueue, agency_id: str) -> None:
    async with agency_queue.take(agency_id):
        pass

"""Another agency during the bulk work: its people get a seat now and then, and each assignment is timed."""

import asyncio
import time
from collections.abc import Mapping

import httpx

from muster_contracts.entitlements import SeatAssigned
from muster_local.demo.cast import START, Agency
from tests.bench.stage import Stage

# Not one of the 44: it is part of a department, with its own enrollment.
OTHER = Agency("ANL", "Argonne National Laboratory", "anl.gov", 10_000, START, ())

PROBES_PER_SECOND = 3

# How often a process's liveness is checked: one whose event loop is blocked answers late.
BEATS_PER_SECOND = 20

_LOOK_SECONDS = 0.003


class Probe:
    """Gives people of the other agency a seat, one at a time, and times each in milliseconds.

    `answers` count from the command to its answer, `delays` from the answer until notify has applied the event.
    """

    def __init__(self, own: Stage) -> None:
        self.answers: list[float] = []
        self.delays: list[float] = []
        self._own = own
        self._number = 0

    async def keep(self) -> None:
        """Continue until cancelled."""
        while True:
            await self.once()

    async def once(self) -> None:
        """Give one seat, and wait for the rest of the probe's turn."""
        began = time.perf_counter()
        person = OTHER.person(self._number)
        self._number += 1
        await self._own.program.post("entitlements", f"agencies/{OTHER.id}/seats", {"email": person.email})
        answered = time.perf_counter()
        while await self._applied() < self._number:
            await asyncio.sleep(_LOOK_SECONDS)
        effect = time.perf_counter()
        self.answers.append((answered - began) * 1000)
        self.delays.append((effect - answered) * 1000)
        await asyncio.sleep(max(0.0, 1 / PROBES_PER_SECOND - (effect - answered)))

    async def _applied(self) -> int:
        sequence: int = await self._own.admin.fetchval(
            "select coalesce(max(last_sequence), 0) from notify.applied where topic = $1 and agency_id = $2",
            SeatAssigned.topic,
            OTHER.id,
        )
        return sequence


async def beat(urls: Mapping[str, str], beats: Mapping[str, list[float]]) -> None:
    """Until canceled, check each process's liveness, and record how many milliseconds its answer took."""
    async with httpx.AsyncClient(timeout=60, trust_env=False) as http, asyncio.TaskGroup() as group:

        async def ask(service: str) -> None:
            while True:
                asked = time.perf_counter()
                (await http.get(f"{urls[service]}/health/live")).raise_for_status()
                beats[service].append((time.perf_counter() - asked) * 1000)
                await asyncio.sleep(1 / BEATS_PER_SECOND)

        for service in urls:
            group.create_task(ask(service))

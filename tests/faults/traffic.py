"""The commands that are sent while faults happen, each recorded with how it ended."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx

from tests.faults.recorder import Command, Ending, Recorder

AGENCIES = ("NASA", "DOE", "EPA", "GSA")

# How long a command is retried before its sender gives up.
PATIENCE_SECONDS = 60.0


class ProbeTraffic:
    """What a field's callers do."""

    client: httpx.AsyncClient
    recorder: Recorder
    traffic_dice: random.Random
    retried = 0  # requests that had no answer, or a server error

    async def assign_seats(
        self, agency_id: str, *seat_ids: str, key: str | None = None, patient: bool = True
    ) -> Command:
        """Send a command, retry it under its key until it has an answer, and record how it ended."""
        key = key or f"key-{self.traffic_dice.getrandbits(64):016x}"
        give_up_at = time.monotonic() + (PATIENCE_SECONDS if patient else 0)
        while True:
            ending, answer = await self._post(agency_id, seat_ids, key)
            if ending != "lost" or time.monotonic() > give_up_at:
                command = Command(key, agency_id, seat_ids, ending, answer)
                self.recorder.record(command)
                return command
            self.retried += 1
            await asyncio.sleep(0.1)

    async def _post(self, agency_id: str, seat_ids: Sequence[str], key: str) -> tuple[Ending, str]:
        try:
            reply = await self.client.post(
                f"/v1/agencies/{agency_id}/seats",
                json={"seat_ids": seat_ids},
                headers={"Idempotency-Key": key},
            )
        except httpx.TransportError:
            return "lost", ""
        if reply.status_code == 201:
            return "answered", reply.text
        # A server error does not say what became of the transaction; a refusal does.
        return ("lost" if reply.status_code >= 500 else "refused"), reply.text

    async def traffic(self, commands: int, *, agencies: Sequence[str] = AGENCIES, at_once: int = 8) -> None:
        """Send commands of 1 to 20 seats each, several at once."""
        turns = asyncio.Semaphore(at_once)
        dice = self.traffic_dice
        numbered = dice.getrandbits(32)

        async def one(number: int, agency_id: str, seats: int) -> None:
            async with turns:
                await self.assign_seats(agency_id, *(f"{numbered:08x}-{number}-{part}" for part in range(seats)))

        await asyncio.gather(*(one(number, dice.choice(agencies), dice.randint(1, 20)) for number in range(commands)))

    @asynccontextmanager
    async def live_traffic(self) -> AsyncIterator[None]:
        """Traffic for as long as the block lasts; every command has ended when the block is left."""
        over = asyncio.Event()

        async def keep_up() -> None:
            while not over.is_set():
                await self.traffic(10)
                await asyncio.sleep(0.1)  # leaves time for the machine's other work

        traffic = asyncio.create_task(keep_up())
        try:
            yield
        finally:
            over.set()
            await traffic

"""A process that writes events at a steady rate: `python -m tests.bench.writer DSN EVENTS EVENTS_PER_SECOND RUN`."""

import asyncio
import sys
import time

import uvloop

from muster_contracts.entitlements import SeatAssigned
from muster_runtime.clock import SystemClock
from muster_runtime.context import Context
from muster_runtime.database.transactions import Database
from tests.bench.relay import SUBJECT
from tests.bench.setting import AGENCIES


async def write(dsn: str, events: int, per_second: float, run: int) -> None:
    """Write the events in transactions of `run` events, the agencies in turn."""
    database = await Database(dsn, "entitlements", SystemClock(), size=1).open()
    async with database.connection() as connection:  # its backend's CPU is not the relay's
        await connection.execute("set application_name = 'writer'")
    start = time.perf_counter()
    for number in range(0, events, run):
        await asyncio.sleep(max(0.0, start + number / per_second - time.perf_counter()))
        agency = AGENCIES[number // run % len(AGENCIES)]
        payloads = [
            b'{"agency_id":"%s","seat_id":"seat_%032x","subject_ref":"%s"}' % (agency.encode(), part, SUBJECT.encode())
            for part in range(number, min(number + run, events))
        ]
        async with database.write(agency, context=Context("bench", "cor_0")) as uow:
            uow.publish_encoded(SeatAssigned, agency, payloads)
    await database.close()


if __name__ == "__main__":
    uvloop.run(write(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))

"""The cost of tracing: an event's CPU from its command to its effect, with tracing off and at three sampling rates."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from unittest.mock import patch

from muster_contracts.entitlements import SeatAssigned
from muster_runtime.context import Context
from muster_runtime.database.outbox import RUN_LENGTH
from muster_runtime.database.wakeup import WakeupListener
from muster_runtime.observability import tracing
from tests.bench.consuming import Counter, counting, make_table
from tests.bench.processes import span
from tests.bench.relay import SUBJECT
from tests.bench.report import Measurement
from tests.bench.setting import AGENCIES, Setting, setting

# The shares of traces that are sampled; None: tracing is off.
SHARES = (None, 0.0, 0.05, 1.0)

AIMS = {0.0: "1.05 × off", 0.05: "1.1 × off", 1.0: ""}

# How many times each is measured, in turn. The lowest counts, since whatever else the machine does only adds to it.
ROUNDS = 3


async def measure(commands: int, events: int) -> list[Measurement]:
    """Commands with an event each, then events in runs of 500, in microseconds of this process's CPU per event."""
    measurements = []
    async with setting() as own, _consumer(own) as counter:
        with _collector() as address:
            for name, total, run in (
                ("commands of one event", commands, 1),
                ("runs of 500 events", events, RUN_LENGTH),
            ):
                rounds = [
                    {share: await _cost(own, counter, share, address, total, run) for share in SHARES}
                    for _ in range(ROUNDS)
                ]
                costs = {share: min(costs[share] for costs in rounds) for share in SHARES}
                measurements += [
                    Measurement(f"{name}, {share:.0%} sampled", costs[share], costs[None], "µs CPU/event", aim)
                    for share, aim in AIMS.items()
                ]
    return measurements


@asynccontextmanager
async def _consumer(own: Setting) -> AsyncIterator[Counter]:
    """A consumer that stores one row per event."""
    await make_table(own)
    async with counting(own) as counter:
        yield counter


@asynccontextmanager
async def _relay(own: Setting) -> AsyncIterator[None]:
    listener = WakeupListener(own.access.worker_dsn, "entitlements", own.database.clock)
    duties = [asyncio.create_task(duty) for duty in (listener.run(), own.relay(listener.wakeup).run())]
    try:
        yield
    finally:
        for duty in duties:
            duty.cancel()
        await asyncio.gather(*duties, return_exceptions=True)


async def _cost(own: Setting, counter: Counter, share: float | None, address: str, events: int, run: int) -> float:
    """Write events in transactions of `run`, then publish and apply them, and export all spans.

    The relay starts when everything is written; otherwise, batch sizes would change the cost more than tracing does.
    """
    wanted = counter.seen + events
    _start_tracing(share, address)
    with span() as measured:
        for number in range(0, events, run):
            agency = AGENCIES[number // run % len(AGENCIES)]
            with tracing.request(None, {"correlation_id": "cor_0"}) as request:
                async with own.database.write(agency, context=Context("bench", "cor_0")) as uow:
                    for part in range(number, min(number + run, events)):
                        seat = SeatAssigned(agency_id=agency, seat_id=f"seat_{part:032x}", subject_ref=SUBJECT)
                        uow.publish(seat)
                tracing.answered(request, "POST", "/v1/agencies/{agency_id}/seats", 201, agency)
        async with _relay(own):
            while counter.seen < wanted:
                await asyncio.sleep(0.005)
        tracing.stop()
    return measured.cpu / events * 1e6


def _start_tracing(share: float | None, address: str) -> None:
    """Export the spans of this share of traces."""
    variables = {} if share is None else {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER_ARG": str(share)}
    variables |= {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}
    with patch.dict(os.environ, variables):
        tracing.start("bench", "bench")


@contextmanager
def _collector() -> Iterator[str]:
    """The address of a collector in a separate process."""
    with subprocess.Popen([sys.executable, "-m", "tests.bench.sink"], stdout=subprocess.PIPE, text=True) as sink:
        assert sink.stdout is not None
        try:
            yield sink.stdout.readline().strip()
        finally:
            sink.kill()

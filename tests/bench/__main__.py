"""`make bench`: every benchmark on one stack. `--quick` runs all of it small, to see that it runs."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from tests.bench import consuming, contracts, latency, relay
from tests.bench.report import Measurement, show
from tests.support import servers


def main(
    quick: Annotated[bool, typer.Option(help="Small numbers, for seeing that it runs.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write the figures as JSON to this file.")] = None,
) -> None:
    """Measure the core beside its limits."""
    servers.start()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            measurements = runner.run(_measure(quick))
    finally:
        servers.stop()
    show(measurements, output)


async def _measure(quick: bool) -> list[Measurement]:
    events = 20_000 if quick else 500_000
    return [
        *contracts.measure(2_000 if quick else 100_000),
        *await relay.measure(events),
        *await consuming.measure(events),
        *await consuming.measure(events),
        *await latency.measure(100 if quick else 1000, per_second=50),
        *await latency.measure(5 if quick else 60, per_second=3),
    ]


typer.run(main)

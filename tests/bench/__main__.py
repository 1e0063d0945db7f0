"""`make bench`: every benchmark on one pair of servers. `--quick` runs each at a small size, to see that it works."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated

import structlog
import typer
import uvloop

from tests.bench import (
    checks,
    consuming,
    contracts,
    deadlines,
    latency,
    peer,
    relay,
    seat_trials,
    secured,
    snapshots,
    steady,
    tracing,
    usage,
    withdrawal,
    workforce,
)
from tests.bench.report import Measurement, Results, say, show, write_json, write_page
from tests.support import servers

Benchmark = Callable[[bool], Awaitable[list[Measurement]]]


async def _contracts(quick: bool) -> list[Measurement]:
    return contracts.measure(2_000 if quick else 100_000)


async def _latency(quick: bool) -> list[Measurement]:
    return [
        *await latency.measure(100 if quick else 1000, per_second=50),
        *await latency.measure(5 if quick else 60, per_second=3),
    ]


_SIZES = (10_000, 100_000, 1_000_000, 2_290_000)
_QUICK_SIZES = (1_000, 5_000)

BENCHMARKS: Mapping[str, Benchmark] = {
    "contracts": _contracts,
    "relay": lambda quick: relay.measure(20_000 if quick else 500_000),
    "steady": lambda quick: steady.measure(100_000 if quick else 2_000_000),
    "peer": lambda quick: peer.measure(1_000 if quick else 30_000, 20_000 if quick else 500_000),
    "consuming": lambda quick: consuming.measure(20_000 if quick else 500_000),
    "latency": _latency,
    "checks": lambda quick: checks.measure(2_000 if quick else 2_290_000, 1.0 if quick else 10.0),
    "usage": lambda quick: usage.measure(20_000 if quick else 500_000, 1.0 if quick else 20.0),
    "deadlines": lambda quick: deadlines.measure(5_000 if quick else 100_000),
    "seat-trials": lambda quick: seat_trials.measure(5_000 if quick else 100_000),
    "tracing": lambda quick: tracing.measure(100 if quick else 2_000, 5_000 if quick else 200_000),
    "secured": lambda quick: secured.measure(*((5_000, 1_000, 1) if quick else (300_000, 300_000, 2))),
    "snapshots": lambda quick: snapshots.measure(2_000 if quick else 2_290_000),
    "workforce": lambda quick: workforce.measure(_QUICK_SIZES if quick else _SIZES, 3 if quick else 100),
    "withdrawal": lambda quick: withdrawal.measure(3_000 if quick else 2_290_000, 3 if quick else 100),
}


def main(
    quick: Annotated[bool, typer.Option(help="Small numbers, for seeing that it runs.")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(BENCHMARKS)}; may be repeated.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the figures as JSON to this file.")] = None,
    report: Annotated[Path | None, typer.Option(help="Put figures and plots between the markers of this page.")] = None,
) -> None:
    """Measure Muster beside its limits."""
    if unknown := sorted(set(only or ()) - BENCHMARKS.keys()):
        raise typer.BadParameter(f"there is no benchmark {unknown[0]}", param_hint="--only")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    servers.start(durable=True)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            results = runner.run(_measure(only or list(BENCHMARKS), quick))
    finally:
        servers.stop()
    show(results)
    if output is not None:
        write_json(results, output)
    if report is not None:
        write_page(results, report)


async def _measure(names: list[str], quick: bool) -> Results:
    results = {}
    for name in names:
        started = time.perf_counter()
        results[name] = await BENCHMARKS[name](quick)
        say(f"{name}: {time.perf_counter() - started:.0f} s")
    return results


typer.run(main)

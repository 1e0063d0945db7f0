"""What TLS and SASL cost: the relay, the consumer and an import on a secured stack, beside the same on a plain one."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from muster_contracts import SERVICES
from muster_runtime.process import collect_garbage_rarely
from tests.bench import consuming, relay, workforce
from tests.bench.processes import Span
from tests.bench.report import Measurement
from tests.bench.setting import Addresses, setting
from tests.bench.stage import start_secured

# How often each import is made, in turn. The fastest counts: whatever else the machine does only slows it down.
ROUNDS = 2


async def measure(events: int, seats: int) -> list[Measurement]:
    """Relay and consume so many events, and import so many seats, on secured servers and on plain ones.

    The secured Postgres is 17, the plain one 18: of the wheels, only the one with 17 has TLS.
    """
    plain = await _relay_and_consume(events, None)
    async with _servers() as addresses:
        secured = await _relay_and_consume(events, addresses)
    measurements = [
        Measurement(
            f"{name}, by TLS and SASL",
            events / ours.wall,
            events / beside.wall,
            "events/s",
            "",
            ours.cpu,
            beside.cpu,
            ours.peak_mebibytes,
        )
        for name, ours, beside in zip(("relay", "consume and apply"), secured, plain, strict=True)
    ]
    return [*measurements, *await _imports(seats)]


async def _relay_and_consume(events: int, addresses: Addresses | None) -> tuple[Span, Span]:
    async with setting(addresses) as own:
        await consuming.make_table(own)
        await relay.fill(own, events)
        relayed, _ = await relay.drain(own, events)
        collect_garbage_rarely()
        return relayed, await consuming.consume(own, events)


@asynccontextmanager
async def _servers() -> AsyncIterator[Addresses]:
    """A secured Postgres and Kafka."""
    home = Path(tempfile.mkdtemp(prefix="muster-bench-"))
    stack = await start_secured(home, services=())
    try:
        yield Addresses(stack.admin_dsn, stack.kafka)
    finally:
        await stack.stop()
        shutil.rmtree(home, ignore_errors=True)


async def _imports(seats: int) -> list[Measurement]:
    runs = [await workforce.run(seats, 0, secure=secure) for _ in range(ROUNDS) for secure in (False, True)]
    plain, secured = (min(runs[first::2], key=lambda run: run.seconds) for first in (0, 1))
    parts = {"the services": SERVICES, "Postgres": ("Postgres",), "Kafka": ("Kafka",)}
    return [
        Measurement(
            f"{seats:,} seats, from files to everywhere",
            secured.seconds,
            plain.seconds,
            "s",
            "1.25 × plain",
            sum(secured.cpu.values()),
            sum(plain.cpu.values()),
            max(secured.peak_mebibytes.values()),
        ),
        *(
            Measurement(
                f"CPU a seat: {part}",
                sum(secured.cpu[name] for name in names) / seats * 1e6,
                sum(plain.cpu[name] for name in names) / seats * 1e6,
                "µs",
                "",
            )
            for part, names in parts.items()
        ),
    ]

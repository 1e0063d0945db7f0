"""The cost of TLS and SASL: the relay, the consumer, and an import on a secured stack and on a plain one."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from muster_contracts import SERVICES
from muster_runtime.process.running import collect_garbage_rarely
from tests.bench import consuming, relay, workforce
from tests.bench.files import import_files, seat_file
from tests.bench.processes import Span, cpu_seconds, span
from tests.bench.report import Measurement, say
from tests.bench.setting import Addresses, setting
from tests.bench.stage import stage, start_alone


@dataclass(frozen=True)
class Import:
    """Seconds of an import, and the CPU seconds of each process."""

    seconds: float
    cpu: Mapping[str, float]


async def measure(events: int, seats: int, rounds: int) -> list[Measurement]:
    """Relay and consume this many events, and import this many seats, on secured servers and on plain ones.

    All servers are new, and do the same work before the measurement, while Java compiles. Of the imports, made in turn,
    the fastest counts, since whatever else the machine does only slows it down. The secured Postgres is 17,
    the plain one 18: only the wheel with 17 has TLS.
    """
    plain = await _relay_and_consume(events, rounds, secure=False)
    secured = await _relay_and_consume(events, rounds, secure=True)
    measurements = [
        Measurement(
            f"{name}, over TLS and SASL",
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
    return [*measurements, *await _imports(seats, rounds)]


async def _relay_and_consume(events: int, rounds: int, *, secure: bool) -> tuple[Span, Span]:
    home = Path(tempfile.mkdtemp(prefix="muster-bench-"))
    stack = await start_alone(home, secure=secure, services=())
    addresses = Addresses(stack.admin_dsn, stack.kafka)
    try:
        for _ in range(rounds):
            async with setting(addresses) as own:
                await consuming.make_table(own)
                await relay.fill(own, events)
                relayed, _ = await relay.drain(own, events)
                collect_garbage_rarely()
                consumed = await consuming.consume(own, events)
    finally:
        await stack.stop()
        shutil.rmtree(home, ignore_errors=True)
    return relayed, consumed


async def _imports(seats: int, rounds: int) -> list[Measurement]:
    runs = [await _import(seats, secure=secure) for _ in range(rounds) for secure in (False, True)]
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


async def _import(seats: int, *, secure: bool) -> Import:
    """Import twice as many, and measure the second half."""
    async with stage(2 * seats, secure=secure) as own:
        files = [
            {agency.id: seat_file(agency, people) for agency, people in zip(own.agencies, halves, strict=True)}
            for halves in zip(*(_halves(agency.seats) for agency in own.agencies), strict=True)
        ]
        await import_files(own, files[0])
        await own.settle()
        processes = own.processes()
        before = {name: cpu_seconds(process) for name, process in processes.items()}
        with span() as measured:
            await import_files(own, files[1])
            await own.settle()
        cpu = {name: cpu_seconds(process) - before[name] for name, process in processes.items()}
        await workforce.prove(own, 2 * seats)
    say(f"secured: {seats:,} seats in {measured.wall:.1f} s, {'secured' if secure else 'plain'}")
    return Import(measured.wall, cpu)


def _halves(people: int) -> tuple[range, range]:
    return range(people // 2), range(people // 2, people)

"""The federal workforce from files to every service: a real stack, a file for each of 44 agencies, until all is quiet.

A person of another agency gets a seat now and then, before and during the import.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from muster_contracts import SERVICES
from muster_contracts.entitlements import SeatAssigned, SubjectAccess
from muster_entitlements.domain.seats import SeatState
from muster_entitlements.repository.seats import SeatColumns, add_seats
from muster_runtime.clock import SystemClock
from muster_runtime.database import writes
from muster_runtime.identifiers import new_ids
from tests.bench import consuming, relay
from tests.bench.files import import_files, seat_file
from tests.bench.latency import percentile
from tests.bench.probe import OTHER, Probe
from tests.bench.processes import Span, cpu_seconds, peak_mebibytes, span
from tests.bench.report import Measurement, say
from tests.bench.setting import AGENCIES, Setting, setting
from tests.bench.stage import Stage, stage

# Rows per statement of the import's limit.
CHUNK = 5_000


@dataclass(frozen=True)
class Run:
    """What one import took. CPU is by process; delays are from an answer to its effect elsewhere, in milliseconds."""

    seats: int
    seconds: float
    cpu: Mapping[str, float]
    peak_mebibytes: Mapping[str, float]
    idle_delays: Sequence[float]
    delays: Sequence[float]


async def measure(sizes: Sequence[int], probes: int) -> list[Measurement]:
    """Import these numbers of seats, each on its own stack; compare CPU and memory with those at the second size."""
    limit = await _limit(min(sizes[-1], 200_000))
    runs = [await _run(size, probes) for size in sizes]
    return [*_times(runs, limit), *_costs(runs), *_memory(runs), *_delays(runs[-1])]


async def _limit(seats: int) -> Span:
    """Seconds per seat of what every import must do, step by step: rows, COPY and send_batch, a consumer."""
    async with setting() as own:
        await consuming.make_table(own)
        with span() as rows:
            await _add_rows(own, seats)
        await relay.fill(own, seats, subject="sub_" + "0" * 32)
        sending = await relay.copy_and_send(own, [])
        consumed = await consuming.bare(own, seats)
    spans = (rows, sending, consumed)
    return Span(sum(s.wall for s in spans) / seats, sum(s.cpu for s in spans) / seats)


async def _add_rows(own: Setting, seats: int) -> None:
    """Insert seats as the import stores them, with one statement per chunk."""
    connection = await asyncpg.connect(own.access.admin_dsn, server_settings={"search_path": "entitlements"})
    now = SystemClock().now()
    for number in range(0, seats, CHUNK):
        agency_id = AGENCIES[number // CHUNK % len(AGENCIES)]
        seat_ids = new_ids("seat", now, min(CHUNK, seats - number))
        columns = SeatColumns(
            seat_ids=seat_ids,
            subject_refs=[f"sub_{secrets.token_hex(16)}" for _ in seat_ids],
            emails=[f"ada.example.{part}@agency.gov" for part in range(number, number + len(seat_ids))],
            names=["Ada Example"] * len(seat_ids),
        )
        await writes.execute(connection, add_seats(agency_id, columns, SeatState.ASSIGNED, now, generation=1))
    await connection.close()


async def _run(seats: int, probes: int) -> Run:
    async with stage(seats, [OTHER]) as own:
        files = {agency.id: seat_file(agency) for agency in own.agencies if agency is not OTHER}
        probe = Probe(own)
        for _ in range(probes):
            await probe.once()
        processes = own.processes()
        before = {name: cpu_seconds(process) for name, process in processes.items()}
        probing = asyncio.create_task(probe.keep())
        with span() as measured:
            await import_files(own, files)
            await own.settle()
        probing.cancel()
        cpu = {name: cpu_seconds(process) - before[name] for name, process in processes.items()}
        await prove(own, seats)
        peaks = {name: peak_mebibytes(processes[name].pid) for name in SERVICES}
    say(f"workforce: {seats:,} seats in {measured.wall:.1f} s")
    return Run(seats, measured.wall, cpu, peaks, probe.delays[:probes], probe.delays[probes:])


async def prove(own: Stage, seats: int) -> None:
    """Check that the import lost no seat and no event: otherwise, its speed means nothing."""
    held = await own.admin.fetchval("select sum(in_use) from entitlements.pool where agency_id <> $1", OTHER.id)
    lost = await own.admin.fetch(
        """
        select s.topic, s.agency_id, s.last_sequence, a.last_sequence as applied
        from entitlements.stream as s
        join notify.applied as a using (topic, agency_id)
        where s.topic = $1 and s.last_sequence <> a.last_sequence
        """,
        SeatAssigned.topic,
    )
    copied = await own.admin.fetchval(
        "select sum(last_sequence) from entitlements.stream where topic = $1 and agency_id <> $2",
        SubjectAccess.topic,
        OTHER.id,
    )
    if held != seats or copied < seats or lost:
        raise AssertionError(f"{held} of {seats} seats are held, {copied} records of them copied; not applied: {lost}")


def _times(runs: Sequence[Run], limit: Span) -> list[Measurement]:
    points = tuple((run.seats, run.seconds) for run in runs)
    return [
        Measurement(
            f"file to everywhere, {run.seats:,} seats",
            run.seconds,
            limit.wall * run.seats,
            "s",
            "under 75 s for 2,290,000",
            sum(run.cpu.values()),
            over="seats",
            points=points if run is runs[-1] else (),
        )
        for run in runs
    ]


def _costs(runs: Sequence[Run]) -> list[Measurement]:
    """CPU per seat, of all processes together and of each."""
    measurements = []
    for name in ("all", *runs[0].cpu):
        totals = [sum(run.cpu.values()) if name == "all" else run.cpu[name] for run in runs]
        costs = [total / run.seats * 1e6 for total, run in zip(totals, runs, strict=True)]
        measurements.append(
            Measurement(
                f"CPU a seat: {name}",
                costs[-1],
                costs[1],
                "µs",
                f"within 1.3 of it at {runs[1].seats:,}" if name == "all" else "",
                totals[-1],
                totals[1],
                over="seats",
                points=tuple((run.seats, cost) for run, cost in zip(runs, costs, strict=True)),
            )
        )
    return measurements


def _memory(runs: Sequence[Run]) -> list[Measurement]:
    aim = f"within 1.2 of it at {runs[1].seats:,}, under 150 MiB"
    return [
        Measurement(
            f"peak memory: {service}",
            runs[-1].peak_mebibytes[service],
            runs[1].peak_mebibytes[service],
            "MiB",
            aim,
            over="seats",
            points=tuple((run.seats, run.peak_mebibytes[service]) for run in runs),
        )
        for service in SERVICES
    ]


def _delays(run: Run) -> list[Measurement]:
    return [
        Measurement(
            f"command to effect elsewhere while {run.seats:,} come in, p{percent}",
            percentile(run.delays, percent),
            percentile(run.idle_delays, percent),
            "ms",
            "under 100 ms" if percent == 99 else "",
        )
        for percent in (50, 99)
    ]

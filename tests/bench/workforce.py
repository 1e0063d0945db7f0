"""The federal workforce from files to everywhere: a real stack, a file for each of 44 agencies, until all is quiet.

Beside it a person of another agency is given a seat now and then, before and during the import.
"""

import asyncio
import csv
import io
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg
import httpx
import psutil

from muster_contracts.entitlements import SeatAssigned
from muster_entitlements.domain import SeatState
from muster_entitlements.repository.seats import SeatColumns, add_seats
from muster_local.demo.cast import START, Agency
from muster_local.programs import SERVICES
from muster_local.scopes import SCOPES
from muster_runtime.clock import SystemClock
from muster_runtime.identifiers import new_ids
from tests.bench import consuming, relay
from tests.bench.latency import percentile
from tests.bench.processes import Span, cpu_seconds, listener, peak_mebibytes, span
from tests.bench.report import Measurement, say
from tests.bench.setting import AGENCIES, Setting, setting
from tests.bench.stage import Stage, stage

# Not one of the 44: part of a department, with an enrolment of its own.
OTHER = Agency("ANL", "Argonne National Laboratory", "anl.gov", 10_000, START, ())

PROBES_PER_SECOND = 3

# Rows in a statement of the import's limit.
CHUNK = 5_000

# The largest file waits for the work on those before it.
_PATIENCE_SECONDS = 600

_LOOK_SECONDS = 0.1
_PROBE_LOOK_SECONDS = 0.003


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
    """Import so many seats, each size on a stack of its own; every CPU and memory beside those at the second size."""
    limit = await _limit(min(sizes[-1], 200_000))
    runs = [await _run(size, probes) for size in sizes]
    return [*_times(runs, limit), *_costs(runs), *_memory(runs), *_delays(runs[-1])]


async def _limit(seats: int) -> Span:
    """Seconds a seat of what nobody can do without, one after the other: rows, COPY and send_batch, a consumer."""
    async with setting() as own:
        await consuming.make_table(own)
        with span() as rows:
            await _add_rows(own, seats)
        await relay.fill(own, seats, subject="sub_" + "0" * 32)
        with span() as sending:
            await relay.copy_and_send(own)
        consumed = await consuming.bare(own, seats)
    spans = (rows, sending, consumed)
    return Span(sum(s.wall for s in spans) / seats, sum(s.cpu for s in spans) / seats)


async def _add_rows(own: Setting, seats: int) -> None:
    """Seats as the import keeps them, a statement for each chunk."""
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
        await add_seats(connection, agency_id, columns, SeatState.ASSIGNED, now)
    await connection.close()


async def _run(seats: int, probes: int) -> Run:
    async with stage(seats, [OTHER]) as own:
        files = {agency.id: _file(agency) for agency in own.agencies if agency is not OTHER}
        probe = _Probe(own)
        idle_delays = [await probe.delay() for _ in range(probes)]
        processes = _processes(own)
        before = {name: cpu_seconds(process) for name, process in processes.items()}
        delays: list[float] = []
        probing = asyncio.create_task(probe.keep(delays))
        with span() as measured:
            await _import(own, files)
            await own.settle()
        probing.cancel()
        cpu = {name: cpu_seconds(process) - before[name] for name, process in processes.items()}
        await _prove(own, seats)
        peaks = {name: peak_mebibytes(processes[name].pid) for name in SERVICES}
    say(f"workforce: {seats:,} seats in {measured.wall:.1f} s")
    return Run(seats, measured.wall, cpu, peaks, idle_delays, delays)


def _file(agency: Agency) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["email", "name"])
    writer.writerows((person.email, person.name) for person in map(agency.person, range(agency.seats)))
    return text.getvalue().encode()


def _processes(own: Stage) -> dict[str, psutil.Process]:
    services = {service: psutil.Process(own.stack.pids()[service]) for service in SERVICES}
    return {**services, "Postgres": listener(own.stack.admin_dsn), "Kafka": listener(own.stack.bootstrap)}


async def _import(own: Stage, files: Mapping[str, bytes]) -> None:
    """Send the files, the large ones first, and wait until they are worked through."""
    url = own.stack.service_url("entitlements")
    headers = {"authorization": f"Bearer {own.stack.token(*SCOPES)}", "content-type": "text/csv"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=_PATIENCE_SECONDS, trust_env=False) as http:
        for agency_id, file in sorted(files.items(), key=lambda item: -len(item[1])):
            reply = await http.post(f"/v1/agencies/{agency_id}/seat-imports", content=file)
            reply.raise_for_status()
    while await own.admin.fetchval("select exists (select from entitlements.operation where state = 'running')"):
        await asyncio.sleep(_LOOK_SECONDS)


async def _prove(own: Stage, seats: int) -> None:
    """A fast import that loses a seat or an event is none."""
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
    if held != seats or lost:
        raise AssertionError(f"{held} of {seats} seats are held; not applied: {lost}")


class _Probe:
    """Gives people of the other agency a seat, one at a time, and times each until notify has applied it."""

    def __init__(self, own: Stage) -> None:
        self._own = own
        self._number = 0

    async def keep(self, delays: list[float]) -> None:
        """Keep every delay until cancelled."""
        while True:
            delays.append(await self.delay())

    async def delay(self) -> float:
        """Milliseconds from the answer to the effect; then the rest of the probe's turn is waited for."""
        turn_ends_at = time.perf_counter() + 1 / PROBES_PER_SECOND
        person = OTHER.person(self._number)
        self._number += 1
        body = {"email": person.email}
        await self._own.programme.post("entitlements", f"agencies/{OTHER.id}/seats", body)
        answered = time.perf_counter()
        while await self._applied() < self._number:
            await asyncio.sleep(_PROBE_LOOK_SECONDS)
        effect = time.perf_counter()
        await asyncio.sleep(max(0.0, turn_ends_at - effect))
        return (effect - answered) * 1000

    async def _applied(self) -> int:
        sequence: int = await self._own.admin.fetchval(
            "select coalesce(max(last_sequence), 0) from notify.applied where topic = $1 and agency_id = $2",
            SeatAssigned.topic,
            OTHER.id,
        )
        return sequence


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
    """CPU a seat, of all processes together and of each."""
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
            "under 500 ms" if percent == 99 else "",
        )
        for percent in (50, 99)
    ]

"""The largest agency withdraws: on a real stack, the time until every service knows that each seat is revoked.

Meanwhile, a person of another agency gets a seat now and then, and every process's liveness is checked.
"""

import asyncio
from contextlib import suppress

from muster_contracts import SERVICES
from muster_contracts.entitlements import SeatRevoked
from tests.bench.files import import_files, seat_file
from tests.bench.latency import percentile
from tests.bench.probe import OTHER, Probe, beat
from tests.bench.processes import begin_peak, peak_mebibytes, span
from tests.bench.report import Measurement, say
from tests.bench.stage import Stage, stage

_LOOK_SECONDS = 0.1


async def measure(workforce: int, probes: int) -> list[Measurement]:
    """Withdraw the largest agency of a workforce of this size: the Department of Defense has a third of it."""
    async with stage(workforce, [OTHER]) as own:
        leaving = max((agency for agency in own.agencies if agency is not OTHER), key=lambda agency: agency.seats)
        await import_files(own, {leaving.id: seat_file(leaving)})
        await own.settle()
        probe = Probe(own)
        for _ in range(probes):
            await probe.once()
        pids = {service: process.pid for service, process in own.processes().items() if service in SERVICES}
        for pid in pids.values():
            begin_peak(pid)
        beats: dict[str, list[float]] = {service: [] for service in SERVICES}
        urls = {service: own.stack.service_url(service) for service in SERVICES}
        beside = [asyncio.create_task(probe.keep()), asyncio.create_task(beat(urls, beats))]
        with span() as measured:
            await _withdraw(own, leaving.id)
        for task in beside:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await _prove(own, leaving.id, leaving.seats)
        peaks = {service: peak_mebibytes(pid) for service, pid in pids.items()}
    say(f"withdrawal: {leaving.seats:,} seats of {leaving.id} in {measured.wall:.1f} s")
    return [
        Measurement(f"{leaving.seats:,} seats revoked everywhere", measured.wall, None, "s", ""),
        *(
            Measurement(name, percentile(during, 99), percentile(idle, 99), "ms", "under 100 ms")
            for name, during, idle in (
                ("another agency's command, p99", probe.answers[probes:], probe.answers[:probes]),
                ("its effect elsewhere, p99", probe.delays[probes:], probe.delays[:probes]),
            )
        ),
        *(
            Measurement(f"longest wait for {service}'s event loop", max(beats[service]), None, "ms", "under 100 ms")
            for service in SERVICES
        ),
        *(
            Measurement(f"peak memory: {service}", peak, None, "MiB", "under 150 MiB")
            for service, peak in peaks.items()
        ),
    ]


async def _withdraw(own: Stage, agency_id: str) -> None:
    read = await own.program.etag("enrollment", f"agencies/{agency_id}/enrollment")
    await own.program.post(
        "enrollment", f"agencies/{agency_id}/withdrawal", {"reason": "reorganized"}, expect=200, if_match=read
    )
    left = "select withdrawn_at is null or revoking > 0 from entitlements.pool where agency_id = $1"
    while await own.admin.fetchval(left, agency_id):
        await asyncio.sleep(_LOOK_SECONDS)
    await own.settle()


async def _prove(own: Stage, agency_id: str, seats: int) -> None:
    """Check that the withdrawal left no seat held and no event unapplied: otherwise, its speed means nothing."""
    held = await own.admin.fetchval(
        "select count(*) from entitlements.seat where agency_id = $1 and state <> 'revoked'", agency_id
    )
    [(said, applied)] = await own.admin.fetch(
        """
        select s.last_sequence, a.last_sequence
        from entitlements.stream as s
        join notify.applied as a using (topic, agency_id)
        where s.topic = $1 and s.agency_id = $2
        """,
        SeatRevoked.topic,
        agency_id,
    )
    if held or said != applied or said < 2 * seats:
        raise AssertionError(f"{held} seats are held; {said} events were published and {applied} applied")

"""Checks over HTTP with the program's number of seats, compared with primary-key reads through the same server.

The server has the role `api` alone, as in the chart's profiles standard and large; the stack's own process counts use.
"""

import asyncio
import hashlib
import random
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psutil

from muster_entitlements.domain.catalog import packaged_catalog
from tests.bench.latency import percentile
from tests.bench.load import Load, Outcome, put_on
from tests.bench.processes import api_process, cpu_seconds, peak_mebibytes, span
from tests.bench.report import Measurement, say
from tests.bench.stage import Stage, stage
from tests.bench.usage import report_uses

# Enough to keep one process busy.
CONNECTIONS = 32

# Enough different people that a processor's cache does not hold their data.
ASKED = 20_000

# Checks per second: one for each of 2.29 million seats within a workday of eight hours.
WORKDAY_RATE = 80

# The uses per second that are counted during the checks, and the number of people who make them.
USES = 2_000
USERS = 4_000

COUNTED_SECONDS = 60

# How many seconds' uses may still wait when the checks end; if it is more, the checks were not beside all of them.
BEHIND_SECONDS = 1.0

PAIRS = 10_000
BULK_CHECKS = 20

_SEATS = """
insert into entitlements.seat (agency_id, seat_id, subject_ref, state, assigned_at, idle_since)
select $1, 'seat_' || lpad(to_hex(n), 32, '0'), 'sub_' || md5($1 || n), 'assigned', now(), current_date
from generate_series(0, $2::int - 1) as s(n)
"""

_JOIN = """
select asked.subject_ref, s.state
from unnest($1::text[]) as asked (subject_ref)
join entitlements.seat as s
    on s.agency_id = $2 and s.subject_ref = asked.subject_ref and s.state <> 'revoked'
"""


@dataclass(frozen=True)
class _Api:
    """The API's process, where it listens, and a token that may ask it."""

    process: psutil.Process
    host: str
    port: int
    token: str


async def measure(seats: int, seconds: float) -> list[Measurement]:
    """Saturate the server with checks, and then ask for half as many; the same with reads of seats by ID.

    Then checks while uses are counted, which takes a part of the machine: saturated, at half that rate, and at the rate
    of a workday.
    """
    async with stage(seats) as own:
        await _fill(own)
        checks, reads = _paths(own)
        async with _api(own) as api:
            limit, limit_cpu = await _get(api, reads, seconds)
            ours, cpu = await _get(api, checks, seconds)
            half, half_cpu = await _get(api, checks, seconds, per_second=ours.rate / 2)
            limit_half, limit_half_cpu = await _get(api, reads, seconds, per_second=limit.rate / 2)
            users = await _users(own)
            most, most_cpu = await _get_beside_uses(own, api, checks, seconds, users)
            beside, beside_cpu = await _get_beside_uses(own, api, checks, seconds, users, per_second=most.rate / 2)
            workday, workday_cpu = await _get_beside_uses(own, api, checks, seconds, users, per_second=WORKDAY_RATE)
            peak = peak_mebibytes(api.process.pid)
        bulk, joined = await _bulk(own)
    p99, limit_p99, beside_p99, workday_p99 = (
        percentile(each.milliseconds, 99) for each in (half, limit_half, beside, workday)
    )
    return [
        Measurement("checks", ours.rate, limit.rate, "checks/s", "0.5 of it", cpu, limit_cpu, peak),
        Measurement("checks at half that rate, p99", p99, limit_p99, "ms", "under 10 ms", half_cpu, limit_half_cpu),
        Measurement(f"checks beside {USES:,} uses/s", most.rate, ours.rate, "checks/s", "", most_cpu, cpu),
        Measurement(
            f"checks at half that rate beside {USES:,} uses/s, p99",
            beside_p99,
            p99,
            "ms",
            "under 10 ms",
            beside_cpu,
            half_cpu,
        ),
        Measurement(
            f"{WORKDAY_RATE} checks/s beside {USES:,} uses/s, p99",
            workday_p99,
            p99,
            "ms",
            "under 10 ms",
            workday_cpu,
            half_cpu,
        ),
        Measurement(f"a bulk check of {PAIRS:,} pairs, median", bulk, joined, "ms", "under 200 ms"),
    ]


async def _fill(own: Stage) -> None:
    """Insert the agencies' seats without the routes: two million take less than a minute."""
    for agency in own.agencies:
        await own.admin.execute(_SEATS, agency.id, agency.seats)
    await own.admin.execute("update entitlements.pool set in_use = cap")
    await own.admin.execute("vacuum analyze entitlements.seat")
    await own.admin.execute("checkpoint")  # what it writes is not measured
    say("checks: the seats are there")


def _paths(own: Stage) -> tuple[list[str], list[str]]:
    """The paths of checks of random people, and of reads of random seats."""
    chance = random.Random(1)
    agencies = chance.choices(own.agencies, [agency.seats for agency in own.agencies], k=ASKED)
    people = [(agency.id, chance.randrange(agency.seats)) for agency in agencies]
    catalog = list(packaged_catalog().features)
    checks = [
        f"/v1/agencies/{agency_id}/checks?subject={_subject(agency_id, number)}&feature={chance.choice(catalog)}"
        for agency_id, number in people
    ]
    return checks, [f"/v1/agencies/{agency_id}/seats/seat_{number:032x}" for agency_id, number in people]


def _subject(agency_id: str, number: int) -> str:
    return "sub_" + hashlib.md5(f"{agency_id}{number}".encode(), usedforsecurity=False).hexdigest()


@asynccontextmanager
async def _api(own: Stage) -> AsyncIterator[_Api]:
    """Another process of entitlements, with the settings of the stack's."""
    environment = psutil.Process(own.stack.pids()["entitlements"]).environ()
    host = environment["MUSTER_HTTP_HOST"]
    with socket.socket() as free:
        free.bind((host, 0))
        port = free.getsockname()[1]
    environment |= {"MUSTER_HTTP_PORT": str(port), "MUSTER_INSTANCE": "entitlements-api"}
    async with api_process("muster_entitlements", environment) as process:
        yield _Api(process, host, port, own.stack.token("entitlements:read"))


async def _get(
    api: _Api, paths: Sequence[str], seconds: float, per_second: float | None = None
) -> tuple[Outcome, float]:
    """The load's outcome, and the API's CPU seconds."""
    before = cpu_seconds(api.process)
    outcome = await put_on(Load(api.host, api.port, api.token, paths, CONNECTIONS, seconds, per_second))
    say(f"checks: {outcome.rate:,.0f} answers/s")
    return outcome, cpu_seconds(api.process) - before


async def _users(own: Stage) -> list[tuple[str, str]]:
    """People of all agencies who have used the feature: first uses activate seats, which is not measured."""
    share = USERS // len(own.agencies)
    users = [(a.id, _subject(a.id, number)) for number in range(share) for a in own.agencies if number < a.seats]
    await _use(own, users, len(users))
    await own.settle()
    return users


async def _get_beside_uses(
    own: Stage,
    api: _Api,
    paths: Sequence[str],
    seconds: float,
    users: Sequence[tuple[str, str]],
    per_second: float | None = None,
) -> tuple[Outcome, float]:
    """The same while the stack counts use of these people from Kafka."""
    uses = int(USES * seconds)
    await _use(own, users, uses, USES)  # the broker's JVM compiles meanwhile
    before = await _count(own)
    async with asyncio.TaskGroup() as group:
        group.create_task(_use(own, users, uses, USES))
        outcome = await _get(api, paths, seconds, per_second)
        counted = await _count(own) - before
    if counted < uses - USES * BEHIND_SECONDS:
        raise RuntimeError(f"only {counted:,} of {uses:,} uses were counted beside the checks")
    return outcome


async def _use(own: Stage, users: Sequence[tuple[str, str]], uses: int, per_second: float | None = None) -> None:
    """Report this many uses, at once or at this rate per second, and wait until they are counted."""
    before = await _count(own)
    await report_uses(own.stack.kafka, own.stack.topic_prefix, users, range(before, before + uses), per_second)
    async with asyncio.timeout(COUNTED_SECONDS):
        while await _count(own) < before + uses:
            await asyncio.sleep(0.05)


async def _count(own: Stage) -> int:
    counted: int = await own.admin.fetchval(
        "select coalesce(sum(next_offset), 0)::bigint from entitlements.usage_offset"
    )
    return counted


async def _bulk(own: Stage) -> tuple[float, float]:
    """Medians, in milliseconds, of bulk checks of the largest agency and of an indexed join of as many people."""
    largest = max(own.agencies, key=lambda agency: agency.seats)
    chance = random.Random(2)
    subjects = [_subject(largest.id, chance.randrange(largest.seats)) for _ in range(PAIRS)]
    catalog = list(packaged_catalog().features)
    pairs = [{"subject": subject, "feature": chance.choice(catalog)} for subject in subjects]
    asked, joined = [], []
    for _ in range(BULK_CHECKS):
        with span() as one:
            await own.program.post("entitlements", f"agencies/{largest.id}/checks", {"pairs": pairs}, expect=200)
        asked.append(one.wall * 1000)
        with span() as one:
            await own.admin.fetch(_JOIN, subjects, largest.id)
        joined.append(one.wall * 1000)
    return percentile(asked, 50), percentile(joined, 50)

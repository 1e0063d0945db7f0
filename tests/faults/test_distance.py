"""Servers far away, on a line that drops connections: everything arrives, in order and within a time limit."""

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from muster_local.servers import kafka_at
from tests.faults import servers
from tests.faults.distance import Distance
from tests.faults.field import Field, Where
from tests.faults.findings import Findings
from tests.faults.traffic import AGENCIES
from tests.support.services import TokenIssuer

pytestmark = pytest.mark.alone

LATENCY_SECONDS = 0.2
RESETS = 0.01

COMMANDS = 40


@dataclass
class Far:
    """A field whose servers can be moved away."""

    field: Field
    postgres: Distance
    kafka: Distance

    @property
    def where(self) -> Where:
        """The servers' addresses through the proxies."""
        access = self.field.access
        api, worker = (self.postgres.address_of(dsn) for dsn in (access.api_dsn, access.worker_dsn))
        return Where(replace(access, api_dsn=api, worker_dsn=worker), self.field.bootstrap)

    def move(self, seconds: float, resets: float) -> None:
        """Set the latency and the resets of both servers."""
        for distance in (self.postgres, self.kafka):
            distance.seconds, distance.resets = seconds, resets

    async def measure(self, name: str, commands: int, at_once: int = 4) -> tuple[list[float], list[float]]:
        """Seconds from a command's sending to its answer, and to its last effect, sorted."""
        answered: list[float] = []
        sent: dict[str, float] = {}
        effects: dict[str, float] = {}
        dice = random.Random(self.field.seed)
        places = asyncio.Semaphore(at_once)

        async def one(number: int) -> None:
            async with places:
                seat_id = f"{name}-{number}"
                sent[seat_id] = time.monotonic()
                await self.field.assign_seats(dice.choice(AGENCIES), seat_id)
                answered.append(time.monotonic() - sent[seat_id])

        async def watch() -> None:
            last = 0
            while len(effects) < commands:
                for row in await self.field.admin.fetch("select id, seat_id from effect where id > $1", last):
                    last = max(last, row["id"])
                    if row["seat_id"] in sent:
                        effects[row["seat_id"]] = time.monotonic() - sent[row["seat_id"]]
                await asyncio.sleep(0.05)

        async with asyncio.timeout(400):
            await asyncio.gather(watch(), *(one(number) for number in range(commands)))
        return sorted(answered), sorted(effects.values())


@pytest.fixture
async def far(tmp_path: Path, topic_prefix: str, tokens: TokenIssuer, seed: int, drill: bool) -> AsyncIterator[Far]:
    """The probe's field on servers of its own, each behind a proxy; Kafka advertises the proxy to its clients."""
    if drill:
        pytest.fail("a drill moves no server away: this is tried on the suite's own alone", pytrace=False)
    dice = random.Random(seed)
    async with AsyncExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="muster-far-")))
        postgres = servers.postgres(folder)
        port = servers.free_port()
        to_kafka = await running.enter_async_context(Distance(port, dice))
        kafka = servers.kafka(tmp_path, port, advertised_port=to_kafka.port)
        for server in (postgres, kafka):
            running.callback(server.stop)
            await server.up()
        to_postgres = await running.enter_async_context(Distance(urlsplit(postgres.address).port or 0, dice))
        field = Field(tmp_path, postgres.address, kafka_at(kafka.address), topic_prefix, tokens, seed)
        async with field:
            far = Far(field, to_postgres, to_kafka)
            yield far
            far.move(0, 0)


def shown(sorted_seconds: list[float]) -> str:
    """The median and the longest."""
    return f"{statistics.median(sorted_seconds):.1f} s (at most {sorted_seconds[-1]:.1f})"


async def test_43_latency_and_resets_lose_nothing_and_hold_nothing_up(far: Far, findings: Findings) -> None:
    field = far.field
    await field.serve("relay", "consumer", where=far.where)
    await field.traffic(20)
    await field.at_rest()
    seen = []
    for name, resets in (("200 ms", 0.0), ("200 ms and resets", RESETS)):
        far.move(LATENCY_SECONDS, resets)
        answers, effects = await far.measure(name, COMMANDS)
        seen.append(f"{name}: answer {shown(answers)}, effect {shown(effects)}")
        assert statistics.median(effects) < 10, seen
        assert effects[-1] < 25, seen
    findings.fault_is_over()
    far.move(0, 0)
    await field.at_rest()
    findings.recovered(f"{'; '.join(seen)}; {far.postgres.was_reset + far.kafka.was_reset} resets")
    assert await field.differences() == []

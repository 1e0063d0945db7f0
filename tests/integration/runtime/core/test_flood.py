"""Ten thousand requests at once, and a consumer far behind: memory stays flat, and the other agencies are served."""

import asyncio
import json
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import psutil
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner

from muster_contracts import Envelope, event_id, source_of, write_headers
from muster_contracts.entitlements import SeatAssigned
from muster_enrollment.bootstrap import build
from muster_runtime.http.exchange import MEBIBYTE
from muster_runtime.http.problems import RETRY_AFTER_SECONDS
from muster_runtime.settings import Settings
from tests.integration.runtime.core.conftest import ProbeStarter
from tests.support.eventually import eventually
from tests.support.operator import authorization
from tests.support.services import PARTITIONS, RunningService, ServiceRunner

REQUESTS = 10_000
# Files that this process has open besides its connections.
OTHER_FILES = 500
# How much a process may grow: 50 MiB with the default limit of connections. Nearly all of it is uvicorn's and uvloop's:
# about 5 KB for an idle connection, 12 KB for one with a request in progress.
GROWTH_BYTES = REQUESTS * 50 * MEBIBYTE // Settings.model_fields["http_connections"].default

# Short in `make test`; a million takes some minutes.
BACKLOG = int(os.environ.get("MUSTER_TEST_BACKLOG", "20000"))
# How much memory a service's process may use, however far behind it is.
PROCESS_BYTES = 150 * MEBIBYTE


@dataclass(frozen=True)
class Api:
    """The enrollment service's API as a process of its own."""

    port: int
    process: psutil.Process
    admin: "asyncpg.Connection[Any]"
    token: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def many_files() -> None:
    """Let this process, and those that it starts, have a connection open for each request."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = REQUESTS + OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.fail(f"{REQUESTS} requests at once need {wanted} open files, and the hard limit is {hard}: raise it")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@pytest.fixture
async def api(run_service: ServiceRunner, many_files: None, unused_tcp_port: int) -> AsyncIterator[Api]:
    beside = await run_service(build, Settings, roles=frozenset())
    settings = beside.runtime.settings
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "muster_enrollment", "serve", "--role", "api"),
        env={
            **os.environ,
            "MUSTER_ENVIRONMENT": "sandbox",
            "MUSTER_HTTP_PORT": str(unused_tcp_port),
            "MUSTER_LOG_LEVEL": "warning",
            "MUSTER_POSTGRES_API_DSN": settings.postgres_api_dsn.get_secret_value(),
            "MUSTER_POSTGRES_WORKER_DSN": settings.postgres_worker_dsn.get_secret_value(),
            "MUSTER_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "MUSTER_TOPIC_PREFIX": settings.topic_prefix,
            "MUSTER_TOPIC_PARTITIONS": str(settings.topic_partitions),
            "MUSTER_OIDC_ISSUER": settings.oidc_issuer,
            "MUSTER_OIDC_JWKS": settings.oidc_jwks,
            "MUSTER_HTTP_CONNECTIONS": str(2 * REQUESTS),
            "MUSTER_HTTP_CONNECTIONS_PER_ADDRESS": str(2 * REQUESTS),
        },
        stdout=asyncio.subprocess.DEVNULL,
    )
    token = beside.token(*(f"enrollment:{verb}" for verb in ("read", "write", "authorize", "operate")))
    found = Api(unused_tcp_port, psutil.Process(process.pid), beside.admin, token)
    headers = {"authorization": f"Bearer {token}", "content-type": "text/tab-separated-values"}
    try:
        async with httpx.AsyncClient(base_url=found.url, headers=headers) as client:
            await eventually(lambda: _answers(client), timeout=60)
            register = "id\tname\tparent\ttreasury_code\tdomains\theadcount\tbranch\n" + "".join(
                f"{agency}\t{agency}\t\t\t{agency.lower()}.gov\t10\texecutive\n" for agency in ("NASA", "DOE")
            )
            reply = await client.post("/v1/register", content=register)
            assert reply.status_code == 200, reply.text
        yield found
    finally:
        process.kill()
        await process.wait()


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health/ready")).status_code == 200
    except httpx.TransportError:
        return False


async def raw_post(api: Api, agency_id: str, number: str, together: asyncio.Barrier | None = None) -> tuple[int, bool]:
    """One request on its own connection, as cheaply as possible: its status, and whether it says when to retry.

    With `together` it is sent once all the others are connected.
    """
    body = json.dumps(authorization(number)).encode()
    head = (
        f"POST /v1/agencies/{agency_id}/authorizations HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Authorization: Bearer {api.token}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    try:
        if together is not None:
            await together.wait()
        writer.write(head.encode() + body)
        answer = await reader.read()
    finally:
        writer.close()
    return int(answer[9:12]), b"\r\nretry-after: 1\r\n" in answer


async def test_a_flood_of_one_agency_is_refused_cleanly_and_another_is_served(api: Api) -> None:
    before = api.process.memory_info().rss
    sizes: list[int] = []
    together = asyncio.Barrier(REQUESTS)
    others: list[tuple[int, float]] = []
    over = asyncio.Event()

    async def one_of_many(number: int) -> tuple[int, bool]:
        answer = await raw_post(api, "NASA", f"NASA-{number}", together)
        sizes.append(api.process.memory_info().rss)
        return answer

    async def other_agency() -> None:
        """A well-behaved client: told to come back a moment later, it does."""
        while not over.is_set():
            since = time.monotonic()
            while (status := (await raw_post(api, "DOE", f"DOE-{len(others)}"))[0]) == 429:
                await asyncio.sleep(RETRY_AFTER_SECONDS)
            others.append((status, time.monotonic() - since))

    other = asyncio.create_task(other_agency())
    answers = await asyncio.gather(*(one_of_many(number) for number in range(REQUESTS)))
    over.set()
    await other

    answered: defaultdict[int, set[str]] = defaultdict(set)
    for number, (status, _) in enumerate(answers):
        answered[status].add(f"NASA-{number}")
    # 503 is for those that waited QUEUE_SECONDS for their turn, or COMMIT_SECONDS for their commit, which may have
    # taken effect: some do on a slow machine.
    assert {201, 429} <= answered.keys() <= {201, 429, 503}, answered.keys()
    assert all(told for status, told in answers if status != 201)
    stored = {row["number"] for row in await api.admin.fetch("select number from atu where agency_id = 'NASA'")}
    assert answered[201] <= stored <= answered[201] | answered[503]
    assert {status for status, _ in others} == {201}, others
    assert max(sizes) - before < GROWTH_BYTES

    async with httpx.AsyncClient(base_url=api.url) as client:
        assert (await client.get("/health/ready")).status_code == 200


async def test_a_request_with_too_many_headers_or_too_long_an_address_is_refused(api: Api) -> None:
    headers = {"authorization": f"Bearer {api.token}"}
    async with httpx.AsyncClient(base_url=api.url, headers=headers) as client:
        many = await client.get("/v1/agencies", headers={f"x-{number}": "a" for number in range(101)})
        large = await client.get("/v1/agencies", headers={"x-large": "a" * 33_000})
        long = await client.get("/v1/agencies", params={"x": "a" * 9_000})
    assert [many.status_code, large.status_code, long.status_code] == [431, 431, 414]
    assert many.json()["type"] == "urn:muster:problem:headers-too-large"
    assert many.headers["content-type"] == "application/problem+json"


async def test_a_consumer_that_is_far_behind_stays_small_and_serves_every_agency(
    idle_probe: RunningService, probe_process: ProbeStarter
) -> None:
    agencies = ["NASA", *(f"A{number}" for number in range(20))]
    await publish_backlog(idle_probe, agencies[0], BACKLOG)
    for agency_id in agencies[1:]:
        await publish_backlog(idle_probe, agency_id, 100)
    expected = BACKLOG + 100 * 20
    beside = [agency_id for agency_id in agencies if partition_of(agency_id) != partition_of(agencies[0])]
    assert beside

    started = await probe_process("consumer")
    process = psutil.Process(started.pid)
    await eventually(lambda: applied(idle_probe, 1), timeout=60, prompt=True)
    sizes = [process.memory_info().rss]

    async def beside_applied() -> list[int]:
        """Once all of the other partition is applied: its events, and those of the backlog that are applied by then."""
        sizes.append(process.memory_info().rss)
        (counts,) = await idle_probe.admin.fetch(
            "select count(*) filter (where agency_id = any($1)), count(*) filter (where agency_id = $2) from effect",
            beside,
            agencies[0],
        )
        return list(counts) if counts[0] == 100 * len(beside) else []

    _, of_backlog = await eventually(beside_applied, timeout=60, prompt=True)
    assert of_backlog < BACKLOG / 2

    async def all_applied() -> bool:
        sizes.append(process.memory_info().rss)
        return await applied(idle_probe, expected)

    await eventually(all_applied, timeout=60 + BACKLOG / 500)
    assert max(sizes) < PROCESS_BYTES, f"{max(sizes) / MEBIBYTE:.0f} MiB"
    disorder = await idle_probe.admin.fetchval(
        """
        select count(*)
        from (
            select sequence - lag(sequence) over (partition by agency_id order by id) as step
            from effect
        ) as steps
        where step <> 1
        """
    )
    assert disorder == 0
    assert await idle_probe.admin.fetchval("select count(distinct event_id) from effect") == expected


def partition_of(agency_id: str) -> int:
    """The partition to which the client sends an agency's events."""
    partitions = list(range(PARTITIONS))
    partition: int = DefaultPartitioner()(agency_id.encode(), partitions, partitions)
    return partition


async def applied(probe: RunningService, at_least: int) -> bool:
    count: int = await probe.admin.fetchval("select count(*) from effect")
    return count >= at_least


async def publish_backlog(probe: RunningService, agency_id: str, count: int) -> None:
    """Publish many events quickly: batched by the client, not awaited one by one."""
    settings = probe.runtime.settings
    topic = SeatAssigned.topic
    kafka = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, enable_idempotence=True, linger_ms=5)
    await kafka.start()
    try:
        for start in range(1, count + 1, 10_000):
            sends = [
                await kafka.send(
                    settings.topic_prefix + topic,
                    value=SeatAssigned(agency_id=agency_id, seat_id=f"{sequence}", subject_ref="sub_1")
                    .model_dump_json()
                    .encode(),
                    key=agency_id.encode(),
                    headers=write_headers(_envelope(probe, agency_id, sequence)),
                )
                for sequence in range(start, min(start + 10_000, count + 1))
            ]
            await asyncio.gather(*sends)
    finally:
        await kafka.stop()


def _envelope(probe: RunningService, agency_id: str, sequence: int) -> Envelope:
    topic = SeatAssigned.topic
    return Envelope(
        id=event_id(topic, agency_id, 1, sequence),
        source=source_of(topic),
        type=SeatAssigned.event_type,
        time=probe.clock.now(),
        agency_id=agency_id,
        epoch=1,
        sequence=sequence,
        correlation_id="cor_backlog",
    )

"""No client starves the others: bodies that never come, heads that never end, connections without a word.

A real process of the enrollment service, with few open files, is attacked over sockets; another client goes on.
"""

import asyncio
import itertools
import resource
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import psutil
import pytest

from muster_enrollment.bootstrap import build
from muster_runtime.process import Role
from muster_runtime.settings import Settings
from tests.support.services import RunningService, ServiceRunner, TokenIssuer

Eventually = Callable[..., Awaitable[Any]]

# The process may open so many files; connections are what is left of them.
OPEN_FILES = 400
PER_ADDRESS = 100
SLOTS = 40

# Attackers come from two addresses, the well-behaved client from another.
SOURCES = itertools.cycle(("127.0.0.2", "127.0.0.3"))
MEBIBYTE = 1024 * 1024

# What an attack may cost the process.
GROWTH_BYTES = 50 * MEBIBYTE

# How often the well-behaved client asks during an attack, and what it sees at worst, but for one in a hundred.
REQUESTS = 200
P99_SECONDS = 0.1


@dataclass
class Server:
    """A process of the enrollment service with its API alone."""

    port: int
    process: psutil.Process
    tokens: TokenIssuer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bearer(self, agency: str) -> str:
        return f"Authorization: Bearer {self.tokens.token('enrollment:write', 'enrollment:read', agency=agency)}\r\n"

    async def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        async with httpx.AsyncClient(base_url=self.url) as client:
            lines = (await client.get("/metrics")).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


@pytest.fixture
async def server(
    run_service: ServiceRunner, tokens: TokenIssuer, unused_tcp_port: int, eventually: Eventually
) -> AsyncIterator[Server]:
    beside: RunningService = await run_service(build, Settings, roles=frozenset({Role.API}))
    settings = beside.runtime.settings
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "muster_enrollment", "serve", "--role", "api"),
        env={
            "MUSTER_ENVIRONMENT": "sandbox",
            "MUSTER_POSTGRES_API_DSN": settings.postgres_api_dsn.get_secret_value(),
            "MUSTER_POSTGRES_WORKER_DSN": settings.postgres_worker_dsn.get_secret_value(),
            "MUSTER_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "MUSTER_TOPIC_PREFIX": settings.topic_prefix,
            "MUSTER_HTTP_PORT": str(unused_tcp_port),
            "MUSTER_HTTP_CONCURRENCY": str(SLOTS),
            "MUSTER_HTTP_CONNECTIONS_PER_ADDRESS": str(PER_ADDRESS),
            "MUSTER_OIDC_ISSUER": settings.oidc_issuer,
            "MUSTER_OIDC_JWKS": settings.oidc_jwks,
        },
        stdout=asyncio.subprocess.DEVNULL,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES)),
    )
    found = Server(unused_tcp_port, psutil.Process(process.pid), tokens)

    async def answers() -> bool:
        try:
            async with httpx.AsyncClient(base_url=found.url) as client:
                return (await client.get("/health/ready")).status_code == 200
        except httpx.TransportError:
            return False

    await eventually(answers, timeout=60)
    yield found
    process.terminate()
    await process.wait()


@asynccontextmanager
async def attacked(
    attack: Callable[[], Coroutine[Any, Any, None]], times: int
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Attack from so many sides at once, until the block ends."""
    sides = [asyncio.create_task(attack()) for _ in range(times)]
    try:
        yield sides
    finally:
        for side in sides:
            side.cancel()
        await asyncio.gather(*sides, return_exceptions=True)


async def served(server: Server, agency: str) -> tuple[set[int], float, int]:
    """A well-behaved client: the statuses that it sees, its 99th percentile in seconds, the process's most memory."""
    statuses: set[int] = set()
    seconds: list[float] = []
    most = 0
    headers = {"authorization": server.bearer(agency).split(": ")[1].strip()}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30) as client:
        for number in range(REQUESTS):
            since = time.monotonic()
            reply = await client.get("/health/ready" if number % 20 == 0 else "/v1/agencies?limit=1")
            seconds.append(time.monotonic() - since)
            statuses.add(reply.status_code)
            most = max(most, server.process.memory_info().rss)
    return statuses, statistics.quantiles(seconds, n=100)[98], most


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection from one of the hostile addresses."""
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(next(SOURCES), 0), family=socket.AF_INET)


async def without_body(server: Server, agency: str) -> None:
    """Announce a body, send nothing of it, and begin again whenever the server gives up."""
    while True:
        reader, writer = await connect(server.port)
        writer.write(
            f"POST /v1/agencies/{agency}/authorizations HTTP/1.1\r\nHost: localhost\r\n{server.bearer(agency)}"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n".encode()
        )
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        await asyncio.sleep(5)  # not a flood: it is enough to hold what one gets


async def without_end(server: Server) -> None:
    """Send header after header, and begin again whenever the server gives up."""
    line = b"x-filler: " + b"a" * 1000 + b"\r\n"
    while True:
        _, writer = await connect(server.port)
        try:
            writer.write(b"GET /v1/agencies HTTP/1.1\r\nHost: localhost\r\n")
            for _ in range(5_000):
                writer.write(line)
                await writer.drain()
        except (ConnectionError, OSError):
            await asyncio.sleep(0.2)
        finally:
            writer.close()


async def without_a_word(server: Server) -> None:
    """Hold a connection, and begin again whenever the server gives up."""
    while True:
        try:
            reader, writer = await connect(server.port)
            await reader.read()
            writer.close()
        except (ConnectionError, OSError):
            pass
        await asyncio.sleep(0.5)


async def without_reading(server: Server) -> None:
    """Send thousands of requests on one connection at once, and read no answer."""
    _, writer = await connect(server.port)
    try:
        while True:
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
            await writer.drain()
    except (ConnectionError, OSError):
        await asyncio.Event().wait()
    finally:
        writer.close()


async def without_taking(server: Server) -> None:
    """Ask for a page of a megabyte, again and again, and take nothing: more than the kernel keeps."""
    with socket.socket() as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asking.setblocking(False)
        asking.bind((next(SOURCES), 0))
        loop = asyncio.get_running_loop()
        await loop.sock_connect(asking, ("127.0.0.1", server.port))
        await loop.sock_sendall(asking, b"GET /docs/redoc.standalone.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 6)
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("attack", "times"),
    [
        pytest.param(lambda server: without_body(server, "EPA"), 500, id="bodies that never come"),
        pytest.param(without_end, 20, id="heads that never end"),
        pytest.param(without_a_word, 1000, id="connections without a word"),
        pytest.param(without_reading, 20, id="requests behind one another"),
        pytest.param(without_taking, 300, id="answers that nobody takes"),
    ],
)
async def test_another_client_is_served_meanwhile(
    server: Server, attack: Callable[[Server], Coroutine[Any, Any, None]], times: int, eventually: Eventually
) -> None:
    await served(server, "NASA")  # warm
    before = server.process.memory_info().rss
    closed, refused = (
        await server.metric("muster_http_connections_closed_total"),
        await server.metric("muster_http_refused_total"),
    )
    async with attacked(partial(attack, server), times):

        async def felt() -> bool:
            """The attack has reached a bound."""
            return (await server.metric("muster_http_connections_closed_total") > closed) or (
                await server.metric("muster_http_refused_total") > refused
            )

        await eventually(felt, timeout=60)

        async def is_served() -> bool:
            """This machine does other work as well: one round of several is enough for the time, all for the rest."""
            statuses, p99, most = await served(server, "NASA")
            assert statuses == {200}
            assert most - before < GROWTH_BYTES
            return p99 < P99_SECONDS

        await eventually(is_served, timeout=60)

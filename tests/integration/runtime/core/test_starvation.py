"""No client starves the others: bodies that never arrive, heads that never end, connections that stay silent.

A real process of the enrollment service, with few open files, is attacked over sockets; another client continues.
"""

import asyncio
import itertools
import socket
import statistics
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.runtime.core.front import Front, fronting
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner, TokenIssuer

pytestmark = pytest.mark.alone

# Attackers come from two addresses, the well-behaved client from another.
SOURCES = itertools.cycle(("127.0.0.2", "127.0.0.3"))
MEBIBYTE = 1024 * 1024

# How much memory an attack may cost the process.
GROWTH_BYTES = 50 * MEBIBYTE

# How many requests the well-behaved client sends during an attack, and how long 99 in a hundred may take at most.
REQUESTS = 200
P99_SECONDS = 0.1

# On a machine that does other work, how many times as long they may take as without an attack.
TIMES_AS_CALM = 2


@pytest.fixture
async def server(
    run_service: ServiceRunner, tokens: TokenIssuer, tmp_path: Path, unused_tcp_port: int
) -> AsyncIterator[Front]:
    async with fronting(run_service, tokens, tmp_path / "log", unused_tcp_port) as front:
        yield front


@asynccontextmanager
async def attacked(
    attack: Callable[[], Coroutine[Any, Any, None]], times: int
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Attack from this many sides at once, until the block ends."""
    sides = [asyncio.create_task(attack()) for _ in range(times)]
    try:
        yield sides
    finally:
        for side in sides:
            side.cancel()
        await asyncio.gather(*sides, return_exceptions=True)


async def served(server: Front, agency: str) -> tuple[set[int], float, int]:
    """A well-behaved client: the statuses that it sees, its 99th percentile in seconds, the process's peak memory."""
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


async def without_body(server: Front, agency: str) -> None:
    """Announce a body, send none of it, and begin again whenever the server gives up."""
    while True:
        reader, writer = await server.connect(next(SOURCES))
        writer.write(
            f"POST /v1/agencies/{agency}/authorizations HTTP/1.1\r\nHost: localhost\r\n{server.bearer(agency)}"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n".encode()
        )
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        await asyncio.sleep(5)  # not a flood: it is enough to hold what one gets


async def without_end(server: Front) -> None:
    """Send header after header, and begin again whenever the server gives up."""
    line = b"x-filler: " + b"a" * 1000 + b"\r\n"
    while True:
        _, writer = await server.connect(next(SOURCES))
        try:
            writer.write(b"GET /v1/agencies HTTP/1.1\r\nHost: localhost\r\n")
            for _ in range(5_000):
                writer.write(line)
                await writer.drain()
        except (ConnectionError, OSError):
            await asyncio.sleep(0.2)
        finally:
            writer.close()


async def without_a_word(server: Front) -> None:
    """Hold a connection, and begin again whenever the server gives up."""
    while True:
        try:
            reader, writer = await server.connect(next(SOURCES))
            await reader.read()
            writer.close()
        except (ConnectionError, OSError):
            pass
        await asyncio.sleep(0.5)


async def without_reading(server: Front) -> None:
    """Send thousands of requests on one connection at once, and read no answer."""
    _, writer = await server.connect(next(SOURCES))
    try:
        while True:
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
            await writer.drain()
    except (ConnectionError, OSError):
        await asyncio.Event().wait()
    finally:
        writer.close()


async def without_taking(server: Front) -> None:
    """Request a page of a megabyte again and again, and read nothing: more than the kernel buffers."""
    with socket.socket() as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asking.setblocking(False)
        asking.bind((next(SOURCES), 0))
        loop = asyncio.get_running_loop()
        await loop.sock_connect(asking, ("127.0.0.1", server.port))
        await loop.sock_sendall(asking, b"GET /docs/redoc.standalone.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 6)
        await asyncio.Event().wait()


async def without_last_trailer(server: Front) -> None:
    """End a chunked body with a header that never ends, and begin again whenever the server gives up."""
    piece = b"a" * 65_536
    while True:
        _, writer = await server.connect(next(SOURCES))
        try:
            writer.write(
                b"GET /v1/agencies HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx-filler: "
            )
            while True:
                writer.write(piece)
                await writer.drain()
        except (ConnectionError, OSError):
            await asyncio.sleep(0.2)
        finally:
            writer.close()


@pytest.mark.parametrize(
    ("attack", "times"),
    [
        pytest.param(lambda server: without_body(server, "EPA"), 500, id="bodies that never come"),
        pytest.param(without_end, 20, id="heads that never end"),
        pytest.param(without_last_trailer, 20, id="trailers that never end"),
        pytest.param(without_a_word, 1000, id="connections without a word"),
        pytest.param(without_reading, 20, id="requests behind one another"),
        pytest.param(without_taking, 300, id="answers that nobody takes"),
    ],
)
async def test_another_client_is_served_meanwhile(
    server: Front, attack: Callable[[Front], Coroutine[Any, Any, None]], times: int
) -> None:
    await served(server, "NASA")  # warm
    _, calm, _ = await served(server, "NASA")
    before = server.process.memory_info().rss
    closed, refused = (
        await server.metric("muster_http_connections_closed_total"),
        await server.metric("muster_http_refused_total"),
    )
    async with attacked(partial(attack, server), times):

        async def felt() -> bool:
            """The attack has reached a limit."""
            return (await server.metric("muster_http_connections_closed_total") > closed) or (
                await server.metric("muster_http_refused_total") > refused
            )

        await eventually(felt, timeout=60)

        rounds: list[tuple[set[int], float, int]] = []

        async def is_quick() -> bool:
            """This machine does other work too: one round must be quick enough, but every round must pass the rest."""
            rounds.append(await served(server, "NASA"))
            seen, p99, most = rounds[-1]
            return p99 < max(P99_SECONDS, TIMES_AS_CALM * calm) or seen != {200} or most - before >= GROWTH_BYTES

        await eventually(is_quick, timeout=60)
    for seen, _, most in rounds:
        assert seen == {200}
        assert most - before < GROWTH_BYTES

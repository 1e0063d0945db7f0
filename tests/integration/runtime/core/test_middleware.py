"""The limits of the HTTP side, each reached on a real process: request slots, connections, files, time."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest

from muster_runtime.database.transactions import EVERY_AGENCY
from muster_runtime.http.connections import HEAD_SECONDS, KEEP_ALIVE_SECONDS, RESERVED_DESCRIPTORS
from tests.integration.runtime.core.front import OPEN_FILES, SLOTS, Front, fronting, statuses
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner, TokenIssuer

Starter = Callable[..., Awaitable[Front]]

LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
async def start(
    run_service: ServiceRunner, tokens: TokenIssuer, tmp_path: Path, unused_tcp_port: int
) -> AsyncIterator[Starter]:
    """`await start(MUSTER_HTTP_CONNECTIONS="50")`: the process, with settings of the test's own."""
    async with AsyncExitStack() as stack:

        async def starter(**variables: str) -> Front:
            context = fronting(run_service, tokens, tmp_path / "log", unused_tcp_port, **variables)
            return await stack.enter_async_context(context)

        yield starter


@asynccontextmanager
async def places_taken(front: Front) -> AsyncIterator[None]:
    """Take every request slot of the process: one agency for each sends a request whose body never arrives."""
    writers = []
    try:
        for number in range(SLOTS):
            _, writer = await front.connect()
            writers.append(writer)
            agency = f"A{number}"
            writer.write(
                f"POST /v1/agencies/{agency}/authorizations HTTP/1.1\r\nHost: localhost\r\n{front.bearer(agency)}"
                "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n".encode()
            )
        yield
    finally:
        for writer in writers:
            writer.close()


async def test_while_all_slots_are_taken_readiness_says_so_and_an_operator_is_served(start: Starter) -> None:
    front = await start()
    agencies_part = SLOTS - SLOTS // 10

    async def in_work(number: int) -> bool:
        return await front.metric("muster_http_in_work") == number

    async with places_taken(front), httpx.AsyncClient(base_url=front.url) as client:
        await eventually(partial(in_work, agencies_part))
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["reasons"]) == (
            503,
            [f"requests are refused: all {SLOTS} request slots are in use"],
        )
        # Load fills every pod of a service at once: if they left it, nobody would be answered, not even an operator.
        for path in ("/health/live", "/health/serving"):
            assert (await client.get(path)).status_code == 200
        for agency, status in (("NASA", 429), (EVERY_AGENCY, 200)):
            headers = {"authorization": f"Bearer {front.tokens.token('enrollment:read', agency=agency)}"}
            assert (await client.get("/v1/agencies?limit=1", headers=headers)).status_code == status

    await eventually(partial(in_work, 0))

    async def ready_again() -> bool:
        async with httpx.AsyncClient(base_url=front.url) as client:
            return (await client.get("/health/ready")).status_code == 200

    await eventually(ready_again, timeout=30)


@pytest.mark.parametrize(
    ("variables", "bound"),
    [
        pytest.param({"MUSTER_HTTP_CONNECTIONS": "50"}, 50, id="the setting"),
        pytest.param({"MUSTER_HTTP_CONNECTIONS": "4000"}, OPEN_FILES - RESERVED_DESCRIPTORS, id="the open files"),
    ],
)
async def test_at_the_limit_of_connections_the_longest_idle_is_closed_and_health_answers(
    start: Starter, variables: dict[str, str], bound: int
) -> None:
    front = await start(**variables, MUSTER_HTTP_CONNECTIONS_PER_ADDRESS="4000")
    held = [await front.connect() for _ in range(bound)]
    try:
        more = [await front.connect("127.0.0.3") for _ in range(20)]
        held += more
        assert await held[0][0].read() == b""  # without an answer: it sent no request
        async with httpx.AsyncClient(base_url=front.url) as client:
            for path in ("/health/live", "/health/ready"):
                assert (await client.get(path)).status_code == 200
        assert await front.metric("muster_http_connections") <= bound
        assert await front.metric("muster_http_connections_closed_total", reason="total") >= 20
        (first, *_) = front.logged("connection_closed")
        assert (first["reason"], first["address"], first["level"]) == ("total", "127.0.0.2", "warning")
        assert front.process.num_fds() < OPEN_FILES
        more[-1][1].write(LIVE)
        assert statuses(await more[-1][0].readuntil(b"\r\n\r\n")) == [200]
    finally:
        for _, writer in held:
            writer.close()


async def test_at_the_limit_of_an_address_another_one_is_served(start: Starter) -> None:
    front = await start(MUSTER_HTTP_CONNECTIONS_PER_ADDRESS="10")
    held = [await front.connect("127.0.0.2") for _ in range(30)]
    try:
        assert await held[0][0].read() == b""
        assert statuses(await front.ask(LIVE, "127.0.0.3")) == [200]
        assert await front.metric("muster_http_connections_closed_total", reason="address") == 20
        assert {line["address"] for line in front.logged("connection_closed")} >= {"127.0.0.2"}
    finally:
        for _, writer in held:
            writer.close()


async def test_a_silent_client_is_disconnected_in_time(start: Starter) -> None:
    cases = [
        (b"", HEAD_SECONDS, [408]),
        (b"GET /health/live HTTP/1.1\r\nHost: a", HEAD_SECONDS, [408]),
        (LIVE, KEEP_ALIVE_SECONDS, [200]),
        (LIVE + b"GET", KEEP_ALIVE_SECONDS, [200]),  # half a head after an answer
    ]
    front = await start()
    since = time.monotonic()

    async def asked(sent: bytes) -> tuple[list[int], float]:
        return statuses(await front.ask(sent)), time.monotonic() - since

    found = await asyncio.gather(*(asked(sent) for sent, _, _ in cases))
    for (sent, seconds, answers), (answered, after) in zip(cases, found, strict=True):
        assert answered == answers, sent
        assert seconds - 0.5 <= after < seconds + 3, sent
    assert {line["reason"] for line in front.logged("connection_closed")} == {"head-time"}  # one line a second
    assert await front.metric("muster_http_connections_closed_total", reason="head-time") == 2


async def test_a_head_after_an_answer_that_nobody_reads_buys_no_time(start: Starter) -> None:
    front = await start()
    with socket.socket() as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asking.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(asking, ("127.0.0.1", front.port))
        page = b"GET /docs/redoc.standalone.js HTTP/1.1\r\nHost: localhost\r\n\r\n"

        async def answered(number: int) -> bool:
            return number == await front.metric(
                "muster_http_request_seconds_count", route="/docs/redoc.standalone.js", status="200"
            )

        with suppress(AssertionError):  # the first that is not answered waits for those before it to be read
            for number in range(1, 10):
                await loop.sock_sendall(asking, page)
                await eventually(partial(answered, number), timeout=1)

        async def given_up() -> bool:
            return await front.metric("muster_http_connections_closed_total", reason="unread") == 1

        await eventually(given_up, timeout=HEAD_SECONDS + 5)


async def test_the_log_says_when_the_process_starts_is_ready_and_stops(
    run_service: ServiceRunner, tokens: TokenIssuer, tmp_path: Path, unused_tcp_port: int
) -> None:
    async with fronting(run_service, tokens, tmp_path / "log", unused_tcp_port) as front:
        pass
    (started,), (_,), (stopping,), (_,) = (
        front.logged(f"service_{what}") for what in ("started", "ready", "stopping", "stopped")
    )
    assert (started["roles"], started["environment"]) == (["api"], "sandbox")
    assert stopping["reason"] == "a signal"

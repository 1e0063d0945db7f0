"""A process ends in time after SIGTERM, in every role, also where Postgres has fallen silent and a client dawdles."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx

from muster_notify.bootstrap import build
from muster_notify.settings import NotifySettings
from muster_runtime.http.connections import DRAIN_SECONDS as HTTP_SECONDS
from muster_runtime.process import Role
from muster_runtime.process.drain import DRAIN_SECONDS
from tests.faults.proxy import PostgresProxy
from tests.faults.servers import free_port
from tests.support.databases import SOURCES
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner

README = SOURCES / "runtime" / "README.md"

# Its client sends the head of a command, and never the body.
DAWDLED = Role.OPERATIONS


def test_what_all_roles_need_is_told_and_no_less_than_what_any_of_them_needs() -> None:
    assert DRAIN_SECONDS.keys() == {"all", *Role}
    assert DRAIN_SECONDS["all"] >= max(DRAIN_SECONDS[role] for role in Role)
    rows = README.read_text("utf-8").splitlines()
    for role, seconds in DRAIN_SECONDS.items():
        assert any(row.startswith(f"| `{role}` |") and row.endswith(f"| {seconds:g} s |") for row in rows), role


async def test_every_role_ends_within_its_time_though_postgres_does_not_answer(run_service: ServiceRunner) -> None:
    front = await run_service(build, NotifySettings, roles=frozenset())
    ports = {role: free_port() for role in DRAIN_SECONDS}
    async with PostgresProxy(front.access.worker_dsn) as postgres:
        processes = {role: await _started(front, postgres, role, port) for role, port in ports.items()}
        try:
            for role, port in ports.items():
                await eventually(lambda: _is_ready(port), timeout=60)  # noqa: B023 - awaited within the turn
                assert processes[role].returncode is None
            async with _dawdling(front, ports[DAWDLED]):
                postgres.fall_silent()
                took = dict(
                    zip(processes, await asyncio.gather(*(_stopped(each) for each in processes.values())), strict=True)
                )
        finally:
            for process in processes.values():
                if process.returncode is None:
                    process.kill()
                await process.wait()
    print({role: f"{seconds:.1f} of {DRAIN_SECONDS[role]:.1f} s" for role, seconds in took.items()})
    assert {role: process.returncode for role, process in processes.items()} == dict.fromkeys(processes, 0)
    assert {role: seconds for role, seconds in took.items() if seconds > DRAIN_SECONDS[role]} == {}
    assert took[DAWDLED] > HTTP_SECONDS


async def _started(front: RunningService, postgres: PostgresProxy, role: str, port: int) -> asyncio.subprocess.Process:
    settings = front.runtime.settings
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "muster_notify", "serve", "--role", role),
        env=os.environ
        | {
            "MUSTER_ENVIRONMENT": "sandbox",
            "MUSTER_INSTANCE": f"notify-{role}",
            "MUSTER_HTTP_PORT": str(port),
            "MUSTER_POSTGRES_API_DSN": postgres.address_of(front.access.api_dsn),
            "MUSTER_POSTGRES_WORKER_DSN": postgres.address_of(front.access.worker_dsn),
            "MUSTER_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "MUSTER_TOPIC_PREFIX": settings.topic_prefix,
            "MUSTER_TOPIC_PARTITIONS": str(settings.topic_partitions),
            "MUSTER_OIDC_ISSUER": settings.oidc_issuer,
            "MUSTER_OIDC_JWKS": settings.oidc_jwks,
        },
        stdout=asyncio.subprocess.DEVNULL,
    )


async def _is_ready(port: int) -> bool:
    with suppress(httpx.TransportError):
        async with httpx.AsyncClient(trust_env=False) as client:
            reply = await client.get(f"http://127.0.0.1:{port}/health/ready")
            assert reply.status_code == 200, reply.text
            return True
    return False


@asynccontextmanager
async def _dawdling(front: RunningService, port: int) -> AsyncIterator[None]:
    """While it lasts, a client owes the body of its command."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/rewind HTTP/1.1\r\nHost: notify\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
        + f"Authorization: {front.client.headers['Authorization']}\r\n\r\n{{".encode()
    )
    await writer.drain()
    try:
        await eventually(lambda: _has_in_work(port))
        yield
    finally:
        writer.close()


async def _has_in_work(port: int) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        metrics = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    return 'muster_http_in_work{service="notify"} 1.0' in metrics


async def _stopped(process: asyncio.subprocess.Process) -> float:
    """Seconds from SIGTERM to the end."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.wait(), 60)
    return time.monotonic() - began

"""A process ends in time after SIGTERM, in every role, even where Postgres has fallen silent and a client dawdles."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import httpx

from muster_notify.bootstrap import build
from muster_notify.settings import NotifySettings
from muster_runtime.http.connections import DRAIN_SECONDS as HTTP_SECONDS
from muster_runtime.process.drain import DRAIN_SECONDS
from muster_runtime.process.roles import Role
from tests.faults.proxy import PostgresProxy
from tests.faults.servers import free_port
from tests.support.databases import SOURCES
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner

README = SOURCES / "runtime" / "README.md"

# Imports once what every process needs, which takes longer than all that they do. It prints each process's id, and then
# its exit status.
FORKED = """
import os, sys
from muster_notify import bootstrap  # noqa: F401
from muster_notify.schema import SCHEMA
from muster_runtime.cli import run

roles = {}
for argument in sys.argv[1:]:
    role, port = argument.split("=")
    if (pid := os.fork()) == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.environ |= {"MUSTER_HTTP_PORT": port, "MUSTER_INSTANCE": f"notify-{role}"}
        sys.argv[1:] = ["serve", "--role", role]
        run("muster_notify.bootstrap", SCHEMA)
    roles[pid] = role
    print(role, pid, flush=True)
while roles:
    pid, status = os.wait()
    print(roles.pop(pid), os.waitstatus_to_exitcode(status), flush=True)
"""

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
    took: dict[str, float] = {}
    statuses: dict[str, int] = {}
    async with PostgresProxy(front.access.worker_dsn) as postgres, _running(front, postgres, ports) as (pids, ended):
        for port in ports.values():
            await eventually(lambda: _is_ready(port), timeout=60)  # noqa: B023 - awaited within the turn
        async with _dawdling(front, ports[DAWDLED]):
            postgres.fall_silent()
            began = time.monotonic()
            for pid in pids.values():
                os.kill(pid, signal.SIGTERM)
            async with asyncio.timeout(60):
                while pids:
                    role, status = (await ended.readline()).decode().split()
                    took[role], statuses[role] = time.monotonic() - began, int(status)
                    del pids[role]
    print({role: f"{seconds:.1f} of {DRAIN_SECONDS[role]:.1f} s" for role, seconds in took.items()})
    assert statuses == dict.fromkeys(DRAIN_SECONDS, 0)
    assert {role: seconds for role, seconds in took.items() if seconds > DRAIN_SECONDS[role]} == {}
    assert took[DAWDLED] > HTTP_SECONDS


@asynccontextmanager
async def _running(
    front: RunningService, postgres: PostgresProxy, ports: Mapping[str, int]
) -> AsyncIterator[tuple[dict[str, int], asyncio.StreamReader]]:
    """A process for each role, by its ID, and the stream on which their ends show."""
    settings = front.runtime.settings
    environment = {
        "MUSTER_ENVIRONMENT": "sandbox",
        "MUSTER_POSTGRES_API_DSN": postgres.address_of(front.access.api_dsn),
        "MUSTER_POSTGRES_WORKER_DSN": postgres.address_of(front.access.worker_dsn),
        "MUSTER_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "MUSTER_TOPIC_PREFIX": settings.topic_prefix,
        "MUSTER_TOPIC_PARTITIONS": str(settings.topic_partitions),
        "MUSTER_OIDC_ISSUER": settings.oidc_issuer,
        "MUSTER_OIDC_JWKS": settings.oidc_jwks,
    }
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FORKED, *(f"{role}={port}" for role, port in ports.items())),
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    pids: dict[str, int] = {}
    try:
        while len(pids) < len(ports):
            role, number = (await parent.stdout.readline()).decode().split()
            pids[role] = int(number)
        yield pids, parent.stdout
    finally:
        for pid in pids.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await parent.wait()


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

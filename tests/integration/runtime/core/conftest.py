"""The probe: within the test's process as `probe`, and as processes of its own by `probe_process`."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from muster_runtime.settings import Settings
from tests.integration.runtime.core.probe.service import build
from tests.support.services import RunningService, ServiceRunner

ProbeStarter = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def probe(run_service: ServiceRunner) -> RunningService:
    return await run_service(build, Settings)


@pytest.fixture
async def idle_probe(run_service: ServiceRunner) -> RunningService:
    """The probe with its HTTP side alone: no relay, no consumer, no scheduler."""
    return await run_service(build, Settings, roles=frozenset())


@pytest.fixture
async def probe_process(idle_probe: RunningService) -> AsyncIterator[ProbeStarter]:
    """`await probe_process("relay", dies_before="delete")`: a process beside `idle_probe`, on its database."""
    started: list[asyncio.subprocess.Process] = []

    async def start(*roles: str, dies_before: str | None = None) -> asyncio.subprocess.Process:
        settings = idle_probe.runtime.settings
        variables = {
            "MUSTER_ENVIRONMENT": "sandbox",
            "MUSTER_INSTANCE": f"probe-{len(started)}",
            "MUSTER_HTTP_PORT": "0",
            "MUSTER_POSTGRES_API_DSN": settings.postgres_api_dsn.get_secret_value(),
            "MUSTER_POSTGRES_WORKER_DSN": settings.postgres_worker_dsn.get_secret_value(),
            "MUSTER_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "MUSTER_TOPIC_PREFIX": settings.topic_prefix,
            "MUSTER_OIDC_ISSUER": settings.oidc_issuer,
            "MUSTER_OIDC_JWKS": settings.oidc_jwks,
        }
        if dies_before is not None:
            variables["PROBE_DIES_BEFORE"] = dies_before
        options = [option for role in roles for option in ("--role", role)]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.integration.runtime.core.probe", "serve", *options),
            env=os.environ | variables,
            stdout=asyncio.subprocess.DEVNULL,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()

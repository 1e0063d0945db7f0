"""The probe: within the test's process as `probe`, and as processes of its own by `probe_process`."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest

from muster_contracts.entitlements import SeatAssigned
from muster_local.servers import kafka_at
from muster_runtime.settings import Settings
from tests.integration.runtime.core.probe.service import build
from tests.support import topics
from tests.support.services import PARTITIONS, RunningService, ServiceRunner

# So that a failed assertion there shows its values, as it does in a test.
pytest.register_assert_rewrite("tests.integration.runtime.core.looks", "tests.integration.runtime.core.streams")

ProbeStarter = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def probe(run_service: ServiceRunner) -> RunningService:
    return await run_service(build, Settings)


@pytest.fixture
async def idle_probe(run_service: ServiceRunner) -> RunningService:
    """The probe with only its HTTP side: no relay, no consumer, no scheduler."""
    return await run_service(build, Settings, roles=frozenset())


@pytest.fixture
async def probe_process(idle_probe: RunningService) -> AsyncIterator[ProbeStarter]:
    """`await probe_process("relay", dies_before="delete")`: a process beside `idle_probe`, on its database.

    With `named=False` its MUSTER_INSTANCE is not set.
    """
    started: list[asyncio.subprocess.Process] = []

    async def start(*roles: str, dies_before: str | None = None, named: bool = True) -> asyncio.subprocess.Process:
        settings = idle_probe.runtime.settings
        variables = {
            "MUSTER_ENVIRONMENT": "sandbox",
            "MUSTER_HTTP_PORT": "0",
            "MUSTER_POSTGRES_API_DSN": settings.postgres_api_dsn.get_secret_value(),
            "MUSTER_POSTGRES_WORKER_DSN": settings.postgres_worker_dsn.get_secret_value(),
            "MUSTER_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "MUSTER_TOPIC_PREFIX": settings.topic_prefix,
            "MUSTER_TOPIC_PARTITIONS": str(settings.topic_partitions),
            "MUSTER_OIDC_ISSUER": settings.oidc_issuer,
            "MUSTER_OIDC_JWKS": settings.oidc_jwks,
        }
        if named:
            variables["MUSTER_INSTANCE"] = f"probe-{len(started)}"
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


async def discard(probe: RunningService, agency_id: str, count: int = 1, **headers: str) -> httpx.Response:
    """Discard the first records of a parked stream of seats, in the order in which they are shown."""
    path = f"/v1/parked/{SeatAssigned.topic}/{quote(agency_id, safe='')}"
    shown = (await probe.client.get(path)).json()["first_records"]
    records = [{name: record[name] for name in ("partition", "offset")} for record in shown[:count]]
    return await probe.client.post(
        f"{path}/discard", json={"records": records, "reason": "entered by mistake"}, headers=headers
    )


def delay_fetches(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the answers to this process's fetches arrive later, as from a Kafka that answers slowly."""
    send: Callable[..., Awaitable[Any]] = AIOKafkaClient.send

    async def sending(client: AIOKafkaClient, node: int, request: Any, **options: Any) -> Any:
        answer = await send(client, node, request, **options)
        if isinstance(request, FetchRequest):
            await asyncio.sleep(seconds)
        return answer

    monkeypatch.setattr(AIOKafkaClient, "send", sending)


async def put_unreadable(
    probe: RunningService, agency_id: str, topic: str = SeatAssigned.topic, partitions: int = PARTITIONS
) -> None:
    """Put on an agency's partition a record whose header name was damaged on its way to Kafka."""
    kafka = kafka_at(probe.runtime.settings.kafka_bootstrap)
    await topics.put_unreadable(kafka, probe.topic_prefix + topic, agency_id, partitions)

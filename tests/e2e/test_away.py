"""A service whose Kafka hangs reports it, stays alive, can be stopped in time, and continues when Kafka is back."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest

from muster_local.servers import KAFKA_BOOTSTRAP, POSTGRES_DSN
from muster_local.stack import Stack
from muster_operator.databases.provisioning import drop
from tests.support.eventually import eventually

# Long enough for a busy machine.
PATIENCE = 90

# Kubernetes' default grace period between SIGTERM and SIGKILL.
GRACE_SECONDS = 30


@pytest.fixture
async def stack(postgres: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stack]:
    """Billing, with its own Kafka that can be frozen."""
    monkeypatch.setenv(POSTGRES_DSN, postgres)
    monkeypatch.delenv(KAFKA_BOOTSTRAP, raising=False)
    home = Path(tempfile.mkdtemp(prefix="muster-away-"))
    stack = await Stack.start(home, services=["billing"])
    database = stack.admin_dsn.rpartition("/")[2].partition("?")[0]
    yield stack
    psutil.Process(stack.pids()["kafka"]).resume()
    await stack.stop()
    await drop(postgres, database)
    shutil.rmtree(home)


async def test_a_frozen_kafka_turns_readiness_red_and_never_liveness(stack: Stack) -> None:
    kafka = psutil.Process(stack.pids()["kafka"])
    async with httpx.AsyncClient(base_url=stack.service_url("billing"), timeout=20) as client:

        async def reasons() -> str:
            assert (await client.get("/health/live")).status_code == 200
            reply = await client.get("/health/ready")
            assert reply.status_code == (200 if reply.json()["ready"] else 503)
            return "; ".join(reply.json()["reasons"])

        async def says(words: str) -> bool:
            assert words in await reasons()
            return True

        async def ready() -> bool:
            return await reasons() == ""

        await eventually(ready, timeout=PATIENCE)
        kafka.suspend()
        await eventually(lambda: says("Kafka cannot be reached"), timeout=PATIENCE)
        kafka.resume()
        await eventually(ready, timeout=PATIENCE)


async def test_a_service_stops_within_the_grace_period_though_kafka_hangs(stack: Stack) -> None:
    psutil.Process(stack.pids()["kafka"]).suspend()
    billing = stack.pids()["billing"]
    asked_at = time.monotonic()
    os.kill(billing, signal.SIGTERM)
    await eventually(lambda: stack.pids().get("billing") != billing, timeout=PATIENCE)
    assert time.monotonic() - asked_at < GRACE_SECONDS

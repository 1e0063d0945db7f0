"""Which processes answer requests though they are not ready: those that were, and whose requests need not wait."""

from typing import NoReturn

import httpx
import pytest

from muster_runtime.messaging.kafka_topics import KafkaTopics
from muster_runtime.process import monitor
from muster_runtime.process.roles import Role
from muster_runtime.process.running import running
from tests.integration.runtime.core.looks import not_ready, ready
from tests.integration.runtime.core.probe.service import build
from tests.support.eventually import eventually
from tests.support.services import RunningService


async def _time_out(_: KafkaTopics) -> NoReturn:
    raise TimeoutError


async def _serving(client: httpx.AsyncClient) -> int:
    return (await client.get("/health/serving")).status_code


async def test_a_process_that_was_ready_serves_while_its_events_or_commits_wait(
    probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "PROOF_SECONDS", 0)
    await eventually(lambda: ready(probe))
    with monkeypatch.context() as kafka:
        kafka.setattr(KafkaTopics, "look", _time_out)
        await eventually(lambda: not_ready(probe, "Kafka cannot be reached"))
        assert await _serving(probe.client) == 200
    await eventually(lambda: ready(probe))
    with monkeypatch.context() as standby:
        standby.setattr(monitor, "COMMIT_SECONDS", -1)
        await eventually(lambda: not_ready(probe, "synchronous standby"))
        assert await _serving(probe.client) == 200  # reads are answered
    await eventually(lambda: ready(probe))
    with monkeypatch.context() as clock:
        clock.setattr(monitor, "ask_for_skew", _skewed)
        await eventually(lambda: not_ready(probe, "the clock is wrong"))
        assert await _serving(probe.client) == 503


async def _skewed(*_: object) -> str:
    return "the clock is wrong"


async def test_a_process_that_was_not_ready_for_a_while_serves_nobody_until_an_upgrade_must_have_been_noticed(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, a rolling upgrade would replace a process that reads and publishes by one that cannot."""
    described = build(idle_probe.runtime.settings)
    async with running(described, frozenset({Role.API, Role.RELAY})) as process:
        transport = httpx.ASGITransport(process.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://probe.test") as client:
            monkeypatch.setattr(KafkaTopics, "look", _time_out)
            assert await _serving(client) == 503
            monkeypatch.setattr(monitor, "UNPROVEN_SECONDS", 0)
            assert await _serving(client) == 200

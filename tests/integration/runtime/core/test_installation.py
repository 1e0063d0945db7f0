"""A package that was installed without its migrations says so, and does not pass for up to date."""

from dataclasses import replace
from pathlib import Path

import httpx

from muster_runtime.database.schema import Schema
from muster_runtime.process.roles import Role
from muster_runtime.process.running import running
from tests.integration.runtime.core.probe.service import build
from tests.support.services import RunningService


async def test_readiness_reports_an_installation_without_migrations(idle_probe: RunningService, tmp_path: Path) -> None:
    described = build(idle_probe.runtime.settings)
    async with running(replace(described, schema=Schema("probe", tmp_path)), frozenset({Role.OPERATIONS})) as process:
        transport = httpx.ASGITransport(process.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://probe.test") as client:
            reasons = (await client.get("/health/ready")).json()["reasons"]
    assert f"{tmp_path} has no migrations: reinstall the package" in reasons

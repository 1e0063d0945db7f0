"""The sample service's application over a real database; neither Kafka nor a background duty is needed."""

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import asyncpg
import httpx
import pytest
import structlog
from fastapi import FastAPI

from muster_runtime.clock import SandboxClock
from muster_runtime.database.transactions import EVERY_AGENCY, Database
from muster_runtime.database.wakeup import Wakeup
from muster_runtime.http.application import create_app
from muster_runtime.http.health import Health
from muster_runtime.http.keys import KeySource
from muster_runtime.http.roles import Roles
from muster_runtime.messaging.backlog import Backlog
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.observability import telemetry
from muster_runtime.service import Runtime
from muster_runtime.settings import Settings
from tests.integration.runtime.http.sample import build
from tests.support.databases import Databases
from tests.support.services import ISSUER, TokenIssuer

# So that a failed assertion there shows its values, as it does in a test.
pytest.register_assert_rewrite("tests.integration.runtime.http.problems")


@dataclass
class Sample:
    """The application, with an operator's client on it; `admin` bypasses row-level security."""

    app: FastAPI
    client: httpx.AsyncClient
    admin: "asyncpg.Connection[Any]"
    clock: SandboxClock
    tokens: TokenIssuer
    logged: StringIO
    health: Health = field(default_factory=lambda: Health(ready=True, serving=True))

    def bearer(
        self, *scopes: str, agency: str | Sequence[str] | None = EVERY_AGENCY, subject: str = "operator", **more: Any
    ) -> dict[str, str]:
        """The header of a token."""
        token = self.tokens.token(*scopes, agency=agency, subject=subject, **more)
        return {"Authorization": f"Bearer {token}"}

    async def count(self, table: str) -> int:
        """How many rows a table has."""
        return int(await self.admin.fetchval(f"select count(*) from {table}"))

    async def check_health(self) -> Health:
        """The process's health, as the test has set it."""
        return self.health


@pytest.fixture
def logged() -> Iterator[StringIO]:
    """The process's log output, in the format that it writes."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    telemetry.configure(Settings(environment="sandbox"), "sample")
    structlog.configure(cache_logger_on_first_use=False)  # later tests have their own
    (handler,) = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    written = StringIO()
    handler.setStream(written)
    yield written
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
async def sample(databases: Databases, tokens: TokenIssuer, logged: StringIO) -> AsyncIterator[Sample]:
    """The sample service on a database of its own."""
    service = build(Settings(environment="sandbox", oidc_issuer=ISSUER, oidc_jwks=str(tokens.jwks)))
    access = await databases.make(service.name, service.schema.migrations)
    clock = SandboxClock()
    api = await Database(access.api_dsn, service.name, clock, size=8).open()
    worker = await Database(access.worker_dsn, service.name, clock, size=2).open()
    admin = await asyncpg.connect(access.admin_dsn, server_settings={"search_path": service.name})
    made: Sample

    async def health() -> Health:
        return await made.check_health()

    kafka, backlog = KafkaConnection(service.settings), Backlog(service.settings.outbox_rows)
    app = create_app(
        Runtime(service, service.settings, clock, worker, Wakeup(clock), kafka, backlog),
        api,
        health,
        KeySource(str(tokens.jwks)),
        Roles.load(""),
    )
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sample.test")
    made = Sample(app, client, admin, clock, tokens, logged)
    client.headers.update(made.bearer("sample:read", "sample:write", "sample:operate"))
    yield made
    await client.aclose()
    await admin.close()
    await api.close()
    await worker.close()

"""A whole service in the test's own process, with its own database and topics."""

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx

from muster_contracts import ClockMoved, Envelope, Event, topics
from muster_local.scopes import SCOPES
from muster_operator.databases.provisioning import Access
from muster_operator.topics import create_topics, delete_topics
from muster_runtime.clock import Clock, SandboxClock
from muster_runtime.database.transactions import EVERY_AGENCY
from muster_runtime.http.issuer import Issuer
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.events import Received
from muster_runtime.process.roles import ALL_ROLES, Role
from muster_runtime.process.running import Process, running
from muster_runtime.service import Runtime, Service
from muster_runtime.settings import Settings
from tests.support.databases import Databases
from tests.support.topics import Producer, Reader

E = TypeVar("E", bound=Event)

# Enough to spread keys, and quick to create.
PARTITIONS = 2

ISSUER = "https://issuer.test"


@dataclass(frozen=True)
class TokenIssuer:
    """Signs tokens for the tests; the services read its public keys from a file."""

    issuer: Issuer
    jwks: Path

    def token(
        self,
        *scopes: str,
        agency: str | Sequence[str] | None = EVERY_AGENCY,
        subject: str = "operator",
        **more: Any,
    ) -> str:
        """A bearer token; by default an operator's, for all agencies. `more` are additional claims."""
        return self.issuer.token(scopes, agency=agency, subject=subject, **more)


@dataclass
class RunningService:
    """A service that runs in this process, with every role unless told otherwise."""

    process: Process
    access: Access
    client: httpx.AsyncClient
    admin: "asyncpg.Connection[Any]"
    producer: Producer
    reader: Reader
    tokens: TokenIssuer
    topic_prefix: str

    @property
    def runtime(self) -> Runtime:
        """Its database (worker role), clock, and settings."""
        return self.process.runtime

    @property
    def clock(self) -> SandboxClock:
        """Its clock: `.move(instant)`."""
        assert isinstance(self.runtime.clock, SandboxClock)
        return self.runtime.clock

    def token(
        self, *scopes: str, agency: str | Sequence[str] | None = EVERY_AGENCY, subject: str = "operator", **more: Any
    ) -> str:
        """A bearer token that the service accepts."""
        return self.tokens.token(*scopes, agency=agency, subject=subject, **more)

    async def publish(self, *events: Event, time: datetime | None = None) -> list[Envelope]:
        """Publish events like a correct producer; return their envelopes."""
        return await self.producer.publish(events, time or self.clock.now())

    async def published(self, cls: type[E]) -> list[Received[E]]:
        """Every event of a type that this service has published, each stream in order."""
        return await self.reader.events(cls)


@dataclass
class ServiceRunner:
    """Starts services for one test, and stops them all at its end."""

    databases: Databases
    kafka: KafkaConnection
    topic_prefix: str
    tokens: TokenIssuer
    _exit: AsyncExitStack = field(default_factory=AsyncExitStack)
    _topics: set[str] = field(default_factory=set)

    async def __call__(
        self,
        build: Callable[[Any], Service],
        settings_class: type[Settings],
        *,
        roles: frozenset[Role] = ALL_ROLES,
        beside: RunningService | None = None,
        clock: Clock | None = None,
        **overrides: Any,
    ) -> RunningService:
        """Start the service that `build` creates from its settings; `overrides` are settings by name.

        With `beside`, it is a second process of the same service, on the same database. `clock` replaces its clock.
        """
        described = build(settings_class(**{"environment": "sandbox", **overrides}))
        access = beside.access if beside else await self.databases.make(described.name, described.schema.migrations)
        await self._create_topics(described)
        settings = settings_class(
            **{
                "environment": "sandbox",
                "instance": f"{described.name}-{secrets.token_hex(3)}",
                "postgres_api_dsn": access.api_dsn,
                "postgres_worker_dsn": access.worker_dsn,
                "postgres_owner_dsn": access.owner_dsn,
                "postgres_pool_size": 5,
                "kafka_bootstrap": self.kafka.bootstrap,
                "topic_prefix": self.topic_prefix,
                "topic_partitions": PARTITIONS,
                # A test's only client sends requests as fast as it can.
                "http_token_rate": 1_000_000,
                "http_agency_rate": 1_000_000,
                "personal_reads_per_minute": 1_000_000,
                "oidc_issuer": ISSUER,
                "oidc_jwks": str(self.tokens.jwks),
                **overrides,
            }
        )
        service = build(settings)
        process = await self._exit.enter_async_context(_watched(service, roles, clock))
        admin = await asyncpg.connect(access.admin_dsn, server_settings={"search_path": service.name})
        self._exit.push_async_callback(admin.close)
        client = await self._exit.enter_async_context(self._client(process, service.name))
        producer = beside.producer if beside else await self._enter(Producer(self.kafka, self.topic_prefix))
        reader = await self._enter(Reader(self.kafka, self.topic_prefix, service.produces or [ClockMoved.topic]))
        return RunningService(process, access, client, admin, producer, reader, self.tokens, self.topic_prefix)

    async def close(self) -> None:
        """Stop the started services, and delete the topics."""
        await self._exit.aclose()
        if self._topics:
            await delete_topics(self.kafka, [self.topic_prefix + name for name in self._topics])

    async def _create_topics(self, service: Service) -> None:
        wanted = {*service.topics, ClockMoved.topic} - self._topics
        if wanted:
            descriptions = [topics()[name] for name in sorted(wanted)]
            await create_topics(self.kafka, self.topic_prefix, descriptions, partitions=PARTITIONS)
            self._topics |= wanted

    def _client(self, process: Process, service: str) -> httpx.AsyncClient:
        token = self.tokens.token(*SCOPES, *(f"{service}:{verb}" for verb in ("read", "write", "operate")))
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(process.app, raise_app_exceptions=False),
            base_url=f"http://{service}.test",
            headers={"Authorization": f"Bearer {token}"},
        )

    async def _enter(self, context: Any) -> Any:
        return await self._exit.enter_async_context(context)


@asynccontextmanager
async def _watched(service: Service, roles: frozenset[Role], clock: Clock | None) -> AsyncIterator[Process]:
    """Run a service; if one of its duties failed in the meantime, fail the test."""
    async with running(service, roles, clock) as process:
        yield process
        if process.failed.done():
            process.failed.result()

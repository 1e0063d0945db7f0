"""The process of a service: connects its parts, runs the roles it was given, and shuts them down in order."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from fastapi import FastAPI

from muster_contracts import topics
from muster_runtime.alarm import Bell
from muster_runtime.applier import Applier
from muster_runtime.clock import Clock, SandboxClock, SystemClock
from muster_runtime.consumer import Consumer
from muster_runtime.db import RETRYABLE, Database
from muster_runtime.health import Health
from muster_runtime.http import create_app
from muster_runtime.operations import operations_router
from muster_runtime.parking import parked_streams
from muster_runtime.relay import Relay
from muster_runtime.sandbox import ClockFollower, sandbox_router
from muster_runtime.scheduler import Scheduler, next_due
from muster_runtime.service import Runtime, Service
from muster_runtime.telemetry import LAG, OUTBOX_OLDEST_SECONDS, OUTBOX_ROWS, PARKED

_log = structlog.get_logger(__name__)


class Role(StrEnum):
    """A part of a service; one process may run all of them."""

    API = "api"
    RELAY = "relay"
    CONSUMER = "consumer"
    SCHEDULER = "scheduler"


ALL_ROLES = frozenset(Role)


class StartRefused(Exception):
    """The process cannot start as it is configured; the message says what to do."""


@dataclass
class Process:
    """A running service. `failed` completes, with the error, when one of its duties breaks down."""

    runtime: Runtime
    app: FastAPI
    clock: Clock
    consumer: Consumer | None
    failed: asyncio.Future[None]


class _Duties:
    """The background tasks of a process."""

    def __init__(self) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, duty: Awaitable[None]) -> None:
        task = asyncio.ensure_future(duty)
        task.set_name(name) if isinstance(task, asyncio.Task) else None
        task.add_done_callback(self._on_done)
        self._tasks.append(task)

    def _on_done(self, task: "asyncio.Future[None]") -> None:
        if not task.cancelled() and (error := task.exception()) and not self.failed.done():
            _log.error("duty_failed", exc_info=error)
            self.failed.set_exception(error)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def running(
    service: Service, roles: frozenset[Role] = ALL_ROLES, clock: Clock | None = None
) -> AsyncIterator[Process]:
    """Run a service until the block ends; then let the work in hand finish, and close.

    Raises StartRefused when its topics are missing or the configuration is not fit for production.
    """
    settings = service.settings
    sandbox = settings.environment == "sandbox"
    clock = clock or (SandboxClock() if sandbox else SystemClock())
    await _require_topics(service)
    async with AsyncExitStack() as stack:
        worker_dsn = settings.postgres_worker_dsn.get_secret_value()
        api_dsn = settings.postgres_api_dsn.get_secret_value()
        size = settings.postgres_pool_size
        database = await Database.connect(worker_dsn, service.name, clock, size=size)
        stack.push_async_callback(database.close)
        api_database = database
        if Role.API in roles:
            api_database = await Database.connect(api_dsn, service.name, clock, size=size)
            stack.push_async_callback(api_database.close)

        duties = _Duties()
        bell = Bell(worker_dsn, service.name, clock)
        duties.start("bell", bell.run())
        if isinstance(clock, SandboxClock):
            clock.on_move(bell.ring)
            follower = ClockFollower(settings.kafka_bootstrap, settings.topic_prefix, clock)
            await follower.start()
            stack.push_async_callback(follower.stop)
            duties.start("clock", follower.run())

        runtime = Runtime(service, settings, clock, database, bell.alarm())
        group = settings.topic_prefix + service.name
        applier = Applier(database, service.subscriptions, service=service.name, group=group)
        relay = consumer = scheduler = None
        if Role.RELAY in roles and service.produces:
            relay = Relay(
                database,
                bell.alarm(),
                service=service.name,
                holder=settings.instance or service.name,
                bootstrap=settings.kafka_bootstrap,
                topic_prefix=settings.topic_prefix,
            )
            duties.start("relay", relay.run())
        if Role.SCHEDULER in roles:
            scheduler = Scheduler(database, bell.alarm(), clock, service.deadlines, service.name)
            duties.start("scheduler", scheduler.run())
            for worker in service.workers:
                duties.start(worker.name, worker.run(replace(runtime, alarm=bell.alarm())))
        stack.push_async_callback(duties.stop)
        if Role.CONSUMER in roles and service.subscriptions:
            consumer = Consumer(
                applier,
                sorted({cls.topic for cls in service.subscriptions}),
                client_id=f"{service.name}-{settings.instance}",
                bootstrap=settings.kafka_bootstrap,
                topic_prefix=settings.topic_prefix,
            )
            await consumer.start()
            stack.push_async_callback(consumer.stop)

        monitor = Monitor(runtime, applier, relay, consumer, scheduler)
        app = create_app(runtime, api_database, health=monitor.health, with_api=Role.API in roles)
        app.include_router(operations_router(service.name, applier, database))
        if sandbox:
            app.include_router(sandbox_router(monitor.sandbox_state))
        collect_garbage_rarely()
        yield Process(runtime, app, clock, consumer, duties.failed)


class Monitor:
    """What a process knows of its own state: for readiness, for metrics, for the sandbox's clock."""

    def __init__(
        self,
        runtime: Runtime,
        applier: Applier,
        relay: Relay | None,
        consumer: Consumer | None,
        scheduler: Scheduler | None,
    ) -> None:
        self._runtime = runtime
        self._applier = applier
        self._relay = relay
        self._consumer = consumer
        self._scheduler = scheduler

    async def health(self) -> Health:
        """Readiness with its reasons; the gauges are set on the way."""
        service = self._runtime.service.name
        reasons: list[str] = []
        rows, oldest, parked, lag = 0, 0.0, 0, 0
        try:
            rows, oldest = await self._outbox()
            parked = await self._parked()
        except RETRYABLE as error:
            reasons.append(f"Postgres cannot be reached: {type(error).__name__}")
        if self._consumer is not None:
            if not self._consumer.assigned.is_set():
                reasons.append("the consumer has not joined its group yet")
            try:
                lag = await self._lag()
            except (KafkaError, OSError, TimeoutError) as error:
                reasons.append(f"Kafka cannot be reached: {type(error).__name__}")
        OUTBOX_ROWS.labels(service).set(rows)
        OUTBOX_OLDEST_SECONDS.labels(service).set(oldest)
        PARKED.labels(service, "").set(parked)
        LAG.labels(service, "").set(lag)
        return Health(not reasons, reasons, rows, oldest, lag, parked)

    async def sandbox_state(self) -> dict[str, object]:
        """What the coordinator of the sandbox's clock asks of each process."""
        runtime = self._runtime
        async with runtime.database.pool.acquire() as connection:
            outbox = await connection.fetchval("select count(*) from outbox")
            due = [await next_due(connection)] + [
                await worker.next_due(connection) for worker in runtime.service.workers
            ]
        return {
            "service": runtime.service.name,
            "instance": runtime.settings.instance,
            "now": runtime.clock.now().isoformat().replace("+00:00", "Z"),
            "next_due": min((d for d in due if d is not None), default=None),
            "outbox": outbox,
            "lag": await self._lag(),
            "activity": self._activity(),
        }

    def _activity(self) -> int:
        """A number that grows whenever something was relayed, applied or handled."""
        return sum(
            (
                self._relay.relayed if self._relay else 0,
                self._consumer.applied if self._consumer else 0,
                self._scheduler.handled if self._scheduler else 0,
            )
        )

    async def _outbox(self) -> tuple[int, float]:
        row = await self._runtime.database.pool.fetchrow(
            "select count(*) as rows, min(recorded_at) as oldest from outbox"
        )
        assert row is not None
        if row["oldest"] is None:
            return 0, 0.0
        return row["rows"], max(0.0, (self._runtime.clock.now() - row["oldest"]).total_seconds())

    async def _parked(self) -> int:
        async with self._runtime.database.pool.acquire() as connection:
            return len(await parked_streams(connection, self._applier.group))

    async def _lag(self) -> int:
        async with asyncio.timeout(5):
            return await self._consumer.lag() if self._consumer else 0


async def _require_topics(service: Service) -> None:
    """Refuse to start without the topics: nothing creates them behind an operator's back."""
    settings = service.settings
    needed = {*service.produces, *(cls.topic for cls in service.subscriptions)}
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        existing = set(await admin.list_topics())
    finally:
        await admin.close()
    unknown = sorted(needed - topics().keys())
    missing = sorted(settings.topic_prefix + topic for topic in needed if settings.topic_prefix + topic not in existing)
    if unknown or missing:
        raise StartRefused(
            f"topics are missing: {', '.join(unknown + missing)}; create them with `muster topics apply`"
        )


def collect_garbage_rarely() -> None:
    """Leave what start-up made out of every later collection, and collect seldom: a fifth of a consumer's CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def parse_roles(names: Sequence[str]) -> frozenset[Role]:
    """Roles by name; `all` is every one of them."""
    return ALL_ROLES if "all" in names else frozenset(Role(name) for name in names)

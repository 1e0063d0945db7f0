"""The process of a service: connects its parts, runs the roles it was given, and shuts them down in order."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import asyncpg
import structlog
from aiokafka.errors import KafkaError
from fastapi import FastAPI

from muster_contracts import topics
from muster_runtime.clock import Clock, SandboxClock, SystemClock
from muster_runtime.database.pooler import WAIT_SECONDS, shares_connections
from muster_runtime.database.retention import Purger
from muster_runtime.database.transactions import Database
from muster_runtime.http import idempotency
from muster_runtime.http.agency_queue import AgencyQueue
from muster_runtime.http.application import create_app
from muster_runtime.http.command_gate import CommandGate
from muster_runtime.http.keys import KeySource
from muster_runtime.messaging.applier import Applier
from muster_runtime.messaging.backlog import Backlog
from muster_runtime.messaging.consumer import Consumer
from muster_runtime.messaging.kafka_topics import KafkaTopics, needed_topics, partitions_of
from muster_runtime.messaging.parking import ParkingLimits
from muster_runtime.messaging.relay import Relay
from muster_runtime.messaging.subscriptions import Subscriptions
from muster_runtime.observability.health import HealthCheck
from muster_runtime.observability.monitor import Monitor
from muster_runtime.operations import operations_router
from muster_runtime.sandbox import ClockFollower, sandbox_router
from muster_runtime.scheduling.news import News
from muster_runtime.scheduling.scheduler import Scheduler
from muster_runtime.scheduling.wakeup import WakeupListener
from muster_runtime.service import Runtime, Service

# How long a duty waits for one agency before it goes on with the others; a command's sender waits longer.
WORKER_LOCK_SECONDS = 2

# How long the duties may take to end; a server that hangs must not keep the process.
STOP_SECONDS = 6

_log = structlog.get_logger(__name__)


class Role(StrEnum):
    """A part of a service; one process may run all of them."""

    API = "api"
    RELAY = "relay"
    CONSUMER = "consumer"
    SCHEDULER = "scheduler"
    OPERATIONS = "operations"  # only the operators' routes: for work that needs everything else stopped


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

    def start(self, name: str, duty: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(duty, name=name)
        task.add_done_callback(self._on_done)
        self._tasks.append(task)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) and not self.failed.done():
            _log.error("duty_failed", exc_info=error)
            self.failed.set_exception(error)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks, timeout=STOP_SECONDS)


@asynccontextmanager
async def running(
    service: Service, roles: frozenset[Role] = ALL_ROLES, clock: Clock | None = None
) -> AsyncIterator[Process]:
    """Run a service until the block ends; then let the work in hand finish, and close.

    Raises StartRefused when its topics are missing or wrong, when a server that it needs is away, and when the
    configuration is not fit for production.
    """
    settings = service.settings
    sandbox = settings.environment == "sandbox"
    clock = clock or (SandboxClock() if sandbox else SystemClock())
    if sandbox or roles & {Role.RELAY, Role.CONSUMER}:
        await _require_topics(service)
    worker_dsn = settings.postgres_worker_dsn.get_secret_value()
    api_dsn = settings.postgres_api_dsn.get_secret_value()
    await _require_sessions("MUSTER_POSTGRES_WORKER_DSN", worker_dsn)
    if Role.API in roles:
        await _require_sessions("MUSTER_POSTGRES_API_DSN", api_dsn)
    async with AsyncExitStack() as stack:
        size = settings.postgres_pool_size
        database = await Database.connect(
            worker_dsn,
            service.name,
            clock,
            size=size,
            lock_timeout_seconds=WORKER_LOCK_SECONDS,
            migrations=service.migrations,
        )
        stack.push_async_callback(database.close)
        backlog = Backlog(settings.outbox_rows)
        api_database = database
        if Role.API in roles:
            gate = CommandGate(AgencyQueue(settings.agency_queue), backlog)
            api_database = await Database.connect(
                api_dsn, service.name, clock, size=size, gate=gate, migrations=service.migrations
            )
            stack.push_async_callback(api_database.close)

        duties = _Duties()
        listener = WakeupListener(worker_dsn, service.name, clock)
        duties.start("wakeup", listener.run())
        if isinstance(clock, SandboxClock):
            clock.on_move(listener.wake)
            follower = ClockFollower(settings.kafka_bootstrap, settings.topic_prefix, clock)
            await follower.start()
            stack.push_async_callback(follower.stop)
            duties.start("clock", follower.run())

        runtime = Runtime(service, settings, clock, database, listener.wakeup())
        group = settings.topic_prefix + service.name
        limits = ParkingLimits(settings.parked_records, settings.parked_streams)
        subscriptions = Subscriptions(service.subscriptions, service=service.name, group=group, clock=clock)
        kafka = KafkaTopics(service)
        reads = {cls.topic: partitions_of(cls.topic, settings) for cls in service.subscriptions}
        relay = consumer = scheduler = None
        if Role.RELAY in roles and service.produces:
            relay = Relay(
                database,
                listener.wakeup,
                service=service.name,
                holder=settings.instance,
                bootstrap=settings.kafka_bootstrap,
                topics={topic: partitions_of(topic, settings) for topic in service.produces},
                topic_prefix=settings.topic_prefix,
                backlog=backlog,
                unsafe=lambda: kafka.faults.unsafe,
            )
            duties.start("relay", relay.run())
        if Role.SCHEDULER in roles:
            news = News(database, clock, group, settings.kafka_bootstrap, settings.topic_prefix, reads)
            scheduler = Scheduler(
                database, listener.wakeup(), clock, service.deadlines, service.name, news, settings.parked_streams
            )
            duties.start("scheduler", scheduler.run())
            retentions = [idempotency.retention(settings.idempotency_retention_days), *service.retentions]
            purger = Purger(database, listener.wakeup(), clock, retentions, service.name)
            duties.start("purger", purger.run())
            for worker in service.workers:
                duties.start(worker.name, worker.run(replace(runtime, wakeup=listener.wakeup())))
        stack.push_async_callback(duties.stop)
        if Role.CONSUMER in roles and service.subscriptions:
            consumer = Consumer(
                Applier(database, subscriptions, limits),
                database,
                reads,
                client_id=f"{service.name}-{settings.instance}",
                bootstrap=settings.kafka_bootstrap,
                topic_prefix=settings.topic_prefix,
                batch_records=settings.consumer_batch_records,
                stuck_seconds=settings.consumer_stuck_seconds,
            )

        keys = KeySource(settings.oidc_jwks)
        monitor = Monitor(runtime, api_database, group, backlog, relay, consumer, scheduler, keys, kafka)
        if relay is not None or consumer is not None:
            stack.push_async_callback(kafka.stop)
            await kafka.start()
        duties.start("monitor", monitor.run())
        app = application(
            runtime,
            api_database,
            subscriptions,
            monitor.health,
            keys,
            monitor.sandbox_state,
            with_api=Role.API in roles,
        )
        collect_garbage_rarely()
        if consumer is not None:  # last: no partition waits while start-up blocks the event loop
            await consumer.start()
            stack.push_async_callback(consumer.stop)
            duties.start("consumer", consumer.supervise())
        yield Process(runtime, app, clock, consumer, duties.failed)


def application(
    runtime: Runtime,
    api_database: Database,
    subscriptions: Subscriptions,
    health: HealthCheck,
    keys: KeySource,
    sandbox_state: Callable[[], Awaitable[dict[str, object]]],
    *,
    with_api: bool,
) -> FastAPI:
    """Everything that a process serves over HTTP: the service's routes, the operators', and a sandbox's."""
    app = create_app(runtime, api_database, health=health, keys=keys, with_api=with_api)
    app.include_router(operations_router(runtime.service, subscriptions, runtime.database))
    if runtime.settings.environment == "sandbox":
        app.include_router(sandbox_router(sandbox_state))
    return app


async def _require_topics(service: Service) -> None:
    """Refuse to start without the topics: nothing creates them, or puts them right, behind an operator's back."""
    if unknown := sorted(needed_topics(service) - topics().keys()):
        raise StartRefused(f"there is no contract for the topics {', '.join(unknown)}")
    kafka = KafkaTopics(service)
    try:
        await kafka.start()
        faults = await kafka.look()
    except (KafkaError, OSError) as error:
        raise StartRefused(f"Kafka cannot be reached at {service.settings.kafka_bootstrap}: {error}") from None
    finally:
        await kafka.stop()
    if faults.missing:
        raise StartRefused(f"topics are missing: {', '.join(faults.missing)}; create them with `muster topics apply`")
    if faults.unsafe:
        losses = "; ".join(faults.losses)
        raise StartRefused(f"topics would lose events: {losses}; set them with `muster topics apply`")


async def _require_sessions(setting: str, dsn: str) -> None:
    """Refuse to start without Postgres, and behind a pooler that shares a server connection between sessions."""
    try:
        shared = await shares_connections(dsn)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        reason = str(error).partition("\n")[0] or f"no answer within {WAIT_SECONDS} s"
        raise StartRefused(f"Postgres cannot be reached at {setting}: {reason}") from None
    if shared:
        raise StartRefused(
            f"{setting} leads to a pooler in transaction mode, which does not support LISTEN, prepared statements, "
            "and session settings: set its pool_mode to session, or connect to Postgres directly"
        )


def collect_garbage_rarely() -> None:
    """Leave what start-up made out of every later collection, and collect seldom: a fifth of a consumer's CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def parse_roles(names: Sequence[str]) -> frozenset[Role]:
    """Roles by name; `all` is every one of them."""
    return ALL_ROLES if "all" in names else frozenset(Role(name) for name in names)

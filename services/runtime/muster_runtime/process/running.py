"""Starts the parts of a process that its roles need, in order, and stops them in reverse order."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from aiokafka.errors import KafkaError
from fastapi import FastAPI

from muster_runtime.clock import Clock, SandboxClock, SystemClock
from muster_runtime.database.transactions import Database
from muster_runtime.database.wakeup import WakeupListener
from muster_runtime.http.application import add_routes, create_app
from muster_runtime.http.health import HealthCheck
from muster_runtime.http.keys import KeySource
from muster_runtime.http.roles import Roles
from muster_runtime.messaging.backlog import Backlog
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.consumer import Consumer
from muster_runtime.messaging.kafka_topics import KafkaTopics
from muster_runtime.messaging.subscriptions import Subscriptions
from muster_runtime.observability.telemetry import ROLE_RUNNING
from muster_runtime.operations import operations_routers
from muster_runtime.process import parts
from muster_runtime.process.duties import Duties
from muster_runtime.process.monitor import Monitor
from muster_runtime.process.roles import ALL_ROLES, Role, needed_roles
from muster_runtime.process.sandbox_state import read_sandbox_state
from muster_runtime.process.start_checks import (
    StartRefused,
    require_identity,
    require_issuer,
    require_roles,
    require_sessions,
    require_topics,
)
from muster_runtime.sandbox import sandbox_router
from muster_runtime.service import Runtime, Service


@dataclass
class Process:
    """A running service. If one of its duties fails, `failed` completes with the error."""

    runtime: Runtime
    app: FastAPI
    consumer: Consumer | None
    failed: asyncio.Future[None]


@asynccontextmanager
async def running(
    service: Service, roles: frozenset[Role] = ALL_ROLES, clock: Clock | None = None
) -> AsyncIterator[Process]:
    """Run a service until the block ends, then let the work in hand finish, and close.

    Raises StartRefused if its topics are missing or wrong, if a server that it needs is unreachable or refuses it, or
    if a setting that must never change has changed.
    """
    settings = service.settings
    clock = clock or (SandboxClock() if settings.environment == "sandbox" else SystemClock())
    keys, caller_roles = require_issuer(settings), require_roles(settings)
    kafka = KafkaConnection(settings)
    await _require_servers(service, roles, kafka)
    async with AsyncExitStack() as stack:
        backlog = Backlog(settings.outbox_rows)
        database = await parts.worker_database(service, clock, stack)
        api_database = database
        if Role.API in roles:
            api_database = await parts.api_database(service, clock, backlog, stack)

        await require_identity(service, database)

        duties = Duties()
        listener = WakeupListener(settings.postgres_worker_dsn, service.name, clock)
        if isinstance(clock, SandboxClock):
            follower = await parts.clock_follower(settings, kafka, clock, listener, stack)
            duties.start("clock", follower.run())
        duties.start("wakeup", listener.run())

        runtime = Runtime(service, settings, clock, database, listener.wakeup(), kafka, backlog)
        subscriptions = Subscriptions(service.subscriptions, service=service.name, group=runtime.group, clock=clock)
        topics = KafkaTopics(kafka, settings, service.name, service.topics)
        takes_in = Role.WORKER in roles and bool(service.intakes)
        own = parts.WatchedDuties()
        if Role.RELAY in roles and service.produces:
            own.relay = parts.make_relay(runtime, listener, topics)
            duties.start("relay", own.relay.run())
        if Role.SCHEDULER in roles:
            own.scheduler = parts.make_scheduler(runtime, listener)
            duties.start("scheduler", own.scheduler.run())
            duties.start("purger", parts.make_purger(runtime, listener).run())
            own.sealer = parts.make_sealer(runtime, listener)
            if own.sealer is not None:
                duties.start("sealer", own.sealer.run())
        if Role.WORKER in roles:
            for worker in service.workers:
                duties.start(worker.name, worker.run(replace(runtime, wakeup=listener.wakeup())))
        stack.push_async_callback(duties.stop)
        if Role.CONSUMER in roles and service.subscriptions:
            own.consumer = parts.make_consumer(runtime, subscriptions)

        watched = topics if own.relay is not None or own.consumer is not None or takes_in else None
        monitor = Monitor(runtime, api_database, own, keys, watched)
        if watched is not None:
            stack.push_async_callback(topics.stop)
            try:
                await topics.start()
            except KafkaError as error:
                raise StartRefused(await kafka.failure(error)) from None
        duties.start("monitor", monitor.run())
        app = application(
            runtime,
            api_database,
            subscriptions,
            monitor.health,
            keys,
            caller_roles,
            partial(read_sandbox_state, runtime, own),
            with_api=Role.API in roles,
        )
        collect_garbage_rarely()
        if own.consumer is not None:  # last, so that no partition waits while startup blocks the event loop
            stack.push_async_callback(own.consumer.stop)
            try:
                await own.consumer.start()
            except KafkaError as error:
                raise StartRefused(await kafka.failure(error)) from None
            duties.start("consumer", own.consumer.supervise())
        for role in needed_roles(service):
            ROLE_RUNNING.labels(service.name, role).set(role in roles)
        yield Process(runtime, app, own.consumer, duties.failed)


def application(
    runtime: Runtime,
    api_database: Database,
    subscriptions: Subscriptions,
    health: HealthCheck,
    keys: KeySource,
    roles: Roles,
    sandbox_state: Callable[[], Awaitable[dict[str, object]]],
    *,
    with_api: bool,
) -> FastAPI:
    """Everything that a process serves over HTTP: the service's routes, the operators', and a sandbox's."""
    app = create_app(runtime, api_database, health=health, keys=keys, roles=roles, with_api=with_api)
    app.state.subscriptions = subscriptions
    for router in operations_routers(runtime.service.name):
        add_routes(app, router)
    if runtime.settings.environment == "sandbox":
        add_routes(app, sandbox_router(sandbox_state))
    return app


async def _require_servers(service: Service, roles: frozenset[Role], kafka: KafkaConnection) -> None:
    settings = service.settings
    if settings.environment == "sandbox" or roles & {Role.RELAY, Role.CONSUMER}:
        await require_topics(service, kafka)
    await require_sessions("MUSTER_POSTGRES_WORKER_DSN", settings.postgres_worker_dsn)
    if Role.API in roles:
        await require_sessions("MUSTER_POSTGRES_API_DSN", settings.postgres_api_dsn)


def collect_garbage_rarely() -> None:
    """Exclude startup objects from garbage collection, and collect rarely: it saves a fifth of a consumer's CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)

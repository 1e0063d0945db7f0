"""Builds the parts of a process from its service and settings; `running` starts them."""

from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

from muster_runtime.clock import Clock, SandboxClock
from muster_runtime.database.transactions import Database
from muster_runtime.database.wakeup import WakeupListener
from muster_runtime.http import idempotency
from muster_runtime.http.agency_queue import AgencyQueue
from muster_runtime.http.command_gate import CommandGate
from muster_runtime.messaging.applier import Applier
from muster_runtime.messaging.backlog import Backlog
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.consumer import Consumer
from muster_runtime.messaging.kafka_topics import KafkaTopics, partitions_of
from muster_runtime.messaging.parking import ParkingLimits
from muster_runtime.messaging.relay import Relay
from muster_runtime.messaging.subscriptions import Subscriptions
from muster_runtime.sandbox import ClockFollower
from muster_runtime.scheduling import hold, trails
from muster_runtime.scheduling.news import Ends, IntakeNews, News, ask_for_ends
from muster_runtime.scheduling.retention import Purger
from muster_runtime.scheduling.scheduler import Scheduler
from muster_runtime.scheduling.sealer import Sealer
from muster_runtime.service import Runtime, Service
from muster_runtime.settings import Settings

# How long a duty waits for one agency's lock before it continues with the others. Commands wait longer.
WORKER_LOCK_SECONDS = 2

# How long a request's statement may take: otherwise, a few slow ones take all connections of the pool.
STATEMENT_SECONDS = 10


@dataclass
class WatchedDuties:
    """A process's duties that others look at; None where its roles do not include one."""

    relay: Relay | None = None
    consumer: Consumer | None = None
    scheduler: Scheduler | None = None
    sealer: Sealer | None = None

    async def lag(self) -> int:
        """How many records the consumer has not applied."""
        return await self.consumer.lag() if self.consumer else 0

    async def intake_lag(self, runtime: Runtime) -> int:
        """How many records of its intake the service has not read; 0 in a process without a consumer to ask for it."""
        intake = runtime.service.intake
        if intake is None or self.consumer is None:
            return 0
        prefix = runtime.settings.topic_prefix
        ends = await ask_for_ends(self.consumer.ends, prefix, _partitions_of(intake.topics, runtime))
        async with runtime.database.connection() as connection:
            offsets = await intake.offsets(connection)
        return sum(max(0, end - offsets.get(partition, 0)) for partition, end in ends.items())

    @property
    def activity(self) -> int:
        """A number that grows whenever something was relayed, applied, or handled."""
        return sum(
            (
                self.relay.relayed if self.relay else 0,
                self.consumer.applied if self.consumer else 0,
                self.scheduler.handled if self.scheduler else 0,
            )
        )


async def worker_database(service: Service, clock: Clock, stack: AsyncExitStack) -> Database:
    """The duties' pool; `stack` closes it."""
    settings = service.settings
    database = await Database(
        settings.postgres_worker_dsn,
        service.name,
        clock,
        size=settings.postgres_pool_size,
        lock_timeout_seconds=WORKER_LOCK_SECONDS,
        schema=service.schema,
    ).open()
    stack.push_async_callback(database.close)
    return database


async def api_database(service: Service, clock: Clock, backlog: Backlog, stack: AsyncExitStack) -> Database:
    """The routes' pool, with a gate for their commands; `stack` closes it."""
    settings = service.settings
    database = await Database(
        settings.postgres_api_dsn,
        service.name,
        clock,
        size=settings.postgres_pool_size,
        statement_seconds=STATEMENT_SECONDS,
        gate=CommandGate(AgencyQueue(settings.agency_queue), backlog),
        schema=service.schema,
    ).open()
    stack.push_async_callback(database.close)
    return database


async def clock_follower(
    settings: Settings, kafka: KafkaConnection, clock: SandboxClock, listener: WakeupListener, stack: AsyncExitStack
) -> ClockFollower:
    """The follower of the sandbox's clock, caught up with the other processes; `stack` stops it."""
    clock.on_move(listener.wake)
    follower = ClockFollower(kafka, settings.topic_prefix, clock)
    await follower.start()
    stack.push_async_callback(follower.stop)
    return follower


def make_relay(runtime: Runtime, listener: WakeupListener, topics: KafkaTopics) -> Relay:
    """The relay for the service's topics."""
    settings = runtime.settings
    return Relay(
        runtime.database,
        listener.wakeup,
        service=runtime.service.name,
        holder=settings.instance,
        kafka=runtime.kafka,
        topics=_partitions_of(runtime.service.produces, runtime),
        topic_prefix=settings.topic_prefix,
        backlog=runtime.backlog,
        faults=lambda: topics.faults,
        on_restored=lambda: hold.begin_for_lost_commits(runtime.database, runtime.clock, runtime.service.name),
    )


def make_scheduler(runtime: Runtime, listener: WakeupListener) -> Scheduler:
    """The scheduler of the service's deadlines, which wait for its unread news, or for its intake."""
    service = runtime.service
    news = News(runtime.database, runtime.clock, runtime.group, _ends_of(_topics_read(runtime), runtime))
    intake_news = None
    if service.intake is not None:
        ends = _ends_of(_partitions_of(service.intake.topics, runtime), runtime)
        intake_news = IntakeNews(runtime.database, service.intake, ends)
    return Scheduler(
        runtime.database,
        listener.wakeup(),
        runtime.clock,
        service.deadline_handlers,
        service.name,
        news,
        runtime.settings.parked_streams,
        intake_news,
    )


def make_purger(runtime: Runtime, listener: WakeupListener) -> Purger:
    """The purger of expired rows, the runtime's and the service's."""
    service = runtime.service
    settings = runtime.settings
    retentions = [
        idempotency.retention(settings.idempotency_retention_days),
        trails.of_personal_reads(settings.personal_read_retention_days),
        *service.retentions,
    ]
    if settings.audit_retention_days is not None:
        retentions.append(trails.of_audit(settings.audit_retention_days))
    return Purger(runtime.database, listener.wakeup(), runtime.clock, retentions, service.name)


def make_sealer(runtime: Runtime, listener: WakeupListener) -> Sealer | None:
    """The sealer of the audit trail; None if the service publishes no seals."""
    service = runtime.service
    if service.audit_sealed is None:
        return None
    period = timedelta(seconds=runtime.settings.audit_seal_seconds)
    return Sealer(runtime.database, listener.wakeup(), runtime.clock, service.name, service.audit_sealed, period)


def make_consumer(runtime: Runtime, subscriptions: Subscriptions) -> Consumer:
    """The service's member of its consumer group."""
    settings = runtime.settings
    limits = ParkingLimits(settings.parked_records, settings.parked_streams)
    return Consumer(
        Applier(runtime.database, subscriptions, limits),
        runtime.database,
        _topics_read(runtime),
        client_id=f"{runtime.service.name}-{settings.instance}",
        kafka=runtime.kafka,
        topic_prefix=settings.topic_prefix,
        batch_records=settings.consumer_batch_records,
        stuck_seconds=settings.consumer_stuck_seconds,
    )


def _ends_of(partitions: Mapping[str, int], runtime: Runtime) -> Ends:
    return Ends(runtime.clock, runtime.kafka, runtime.settings.topic_prefix, partitions)


def _topics_read(runtime: Runtime) -> dict[str, int]:
    """The topics that the service reads, with the number of partitions each must have."""
    return _partitions_of([cls.topic for cls in runtime.service.subscriptions], runtime)


def _partitions_of(topics: Iterable[str], runtime: Runtime) -> dict[str, int]:
    """The number of partitions that each of these topics must have."""
    return {topic: partitions_of(topic, runtime.settings) for topic in topics}

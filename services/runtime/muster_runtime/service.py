"""The description of a service, as built in its bootstrap."""

from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fastapi import APIRouter

from muster_contracts import Event
from muster_runtime.clock import Clock
from muster_runtime.database.schema import Schema
from muster_runtime.database.transactions import Connection, Database
from muster_runtime.database.wakeup import Wakeup
from muster_runtime.messaging.backlog import Backlog
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.events import EventHandler
from muster_runtime.projection import OpenProjection
from muster_runtime.scheduling import proposals
from muster_runtime.scheduling.deadlines import DeadlineHandler
from muster_runtime.scheduling.news import Intake
from muster_runtime.scheduling.retention import Retention
from muster_runtime.settings import Settings


@dataclass(frozen=True)
class Runtime:
    """What the code of a running service works with; `database` is the worker role's."""

    service: "Service"
    settings: Settings
    clock: Clock
    database: Database
    wakeup: Wakeup
    kafka: KafkaConnection
    backlog: Backlog

    @property
    def group(self) -> str:
        """The service's consumer group, under which its positions and offsets are stored."""
        return self.settings.topic_prefix + self.service.name


@dataclass(frozen=True)
class Worker:
    """A duty of a service's own, besides the scheduler.

    `run` continues until it is canceled. `next_due` returns the earliest instant at which it has work to do; without
    it, a sandbox's clock never waits for the worker.
    """

    name: str
    run: Callable[[Runtime], Coroutine[Any, Any, None]]
    next_due: Callable[[Connection], Awaitable[datetime | None]] | None = None


class Alerted(str):
    """A warning about something that has an alert of its own."""

    __slots__ = ()


@dataclass(frozen=True)
class Service:
    """Everything that makes up one service: built in its bootstrap, run by the runtime."""

    schema: Schema
    settings: Settings
    routers: Sequence[APIRouter] = ()
    """Its routes, which are built once; `Runtime` gives them what they work with in the running process."""
    state: Mapping[str, object] = field(default_factory=dict)
    """Objects that its routes need besides the settings, by name."""
    produces: Sequence[str] = ()
    audit_sealed: type[Event] | None = None
    """The event that publishes a seal of its audit trail, on a topic that it produces to.

    Without it, nothing is sealed.
    """
    subscriptions: Mapping[type[Event], EventHandler] = field(default_factory=dict)
    deadlines: Mapping[str, DeadlineHandler] = field(default_factory=dict)
    required_deadlines: Collection[str] = ()
    """Kinds that cannot be discarded: each schedules its own successor, which would be lost, or deletes data."""
    workers: Sequence[Worker] = ()
    intake: Intake | None = None
    """Topics that its workers read themselves."""
    retentions: Sequence[Retention] = ()
    projections: Mapping[str, OpenProjection] = field(default_factory=dict)
    """Projections that `rebuild NAME` rebuilds from the topics."""
    warnings: Callable[[Connection, datetime], Awaitable[Sequence[str]]] | None = None
    """Problems at an instant that do not stop the service; readiness and `muster status` show them.

    MusterWarning reports those that are not `Alerted`.
    """
    epoch_raised: Callable[[Connection, int], Awaitable[None]] | None = None
    """Runs in the transaction that raises the epoch: what callers saw of lost commits must not be assigned again."""
    identity: Callable[[Connection], Awaitable[str | None]] | None = None
    """Called at each start: says which setting has changed since the first start, though it must never change."""

    @property
    def name(self) -> str:
        """Its name, which its schema has too."""
        return self.schema.name

    @property
    def deadline_handlers(self) -> Mapping[str, DeadlineHandler]:
        """The handlers of the service's deadlines, then the runtime's own."""
        return {**self.deadlines, proposals.PROPOSAL_EXPIRED: proposals.on_proposal_expired_due}

    @property
    def intakes(self) -> Sequence[str]:
        """The topics of its intake."""
        return self.intake.topics if self.intake else ()

    @property
    def topics(self) -> frozenset[str]:
        """The topics that it writes or reads, by the contracts' names."""
        return frozenset({*self.produces, *self.intakes, *(cls.topic for cls in self.subscriptions)})

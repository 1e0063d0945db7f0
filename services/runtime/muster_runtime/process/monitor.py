"""The state of a process: its readiness, its metrics, and what the sandbox's clock needs."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import asyncpg
import structlog
from aiokafka.errors import KafkaError

from muster_runtime.clock import MAX_SKEW
from muster_runtime.database.commits import COMMIT_SECONDS, STANDBY_GONE
from muster_runtime.database.locks import ask_for_skew
from muster_runtime.database.schema import MigrationsMissing, Schema
from muster_runtime.database.transactions import RETRYABLE, Connection, Database
from muster_runtime.http.health import Health
from muster_runtime.http.keys import KeySource
from muster_runtime.messaging import parked
from muster_runtime.messaging.backlog import Backlog
from muster_runtime.messaging.consumer import Consumer
from muster_runtime.messaging.kafka_topics import KafkaTopics
from muster_runtime.messaging.relay import Relay
from muster_runtime.observability.seals import unsealed_agencies
from muster_runtime.observability.telemetry import (
    AUDIT_UNSEALED_SECONDS,
    DEADLINE_OVERDUE_SECONDS,
    ISSUER_KEYS_AGE_SECONDS,
    LAG,
    OLDEST_SNAPSHOT_SECONDS,
    OUTBOX_OLDEST_SECONDS,
    OUTBOX_ROWS,
    PARKED,
    PARKED_DEADLINES,
    PARKED_RECORDS,
    POOL_IN_USE,
    READY,
)
from muster_runtime.scheduling.deadlines import next_due, parked_deadlines
from muster_runtime.scheduling.scheduler import Scheduler
from muster_runtime.scheduling.sealer import Sealer
from muster_runtime.service import Runtime

# How often the metrics are brought up to date, whoever asks for the readiness.
REFRESH_SECONDS = 10.0

# The same while commits wait for a standby: work continues as soon as it is seen to be back.
STANDBY_REFRESH_SECONDS = 1.0

# How long the lag keeps its last value while Kafka does not answer. Then others may have the partitions, and alerts sum
# the lags of all processes.
LAG_KEPT_SECONDS = 30.0

# How long Postgres and Kafka may each take for their answers.
PATIENCE_SECONDS = 4.0

# How long a new process must be ready before it may serve without: by then, it has tried to read and publish.
PROOF_SECONDS = 10.0

# How long a process that never was serves nobody, though it could: until an operator has noticed that an upgrade fails.
UNPROVEN_SECONDS = 900.0

_log = structlog.get_logger(__name__)


class Monitor:
    """Reports the state of one process."""

    def __init__(
        self,
        runtime: Runtime,
        api_database: Database,
        group: str,
        backlog: Backlog,
        relay: Relay | None,
        consumer: Consumer | None,
        scheduler: Scheduler | None,
        sealer: Sealer | None,
        keys: KeySource,
        kafka: KafkaTopics | None,
    ) -> None:
        self._runtime = runtime
        self._schema = Schema(runtime.service.name, runtime.service.migrations)
        self._databases = {"worker": runtime.database, "api": api_database}
        self._group = group
        self._backlog = backlog
        self._relay = relay
        self._consumer = consumer
        self._scheduler = scheduler
        self._sealer = sealer
        self._keys = keys
        self._kafka = kafka
        self._ready = self._proven = False
        self._began_at = self._ready_at = time.monotonic()
        self._lag_known_at = 0.0

    async def run(self) -> None:
        """Keep the metrics up to date until cancelled."""
        while True:
            try:
                await self.health()
            except Exception:  # monitoring must not stop the process
                _log.warning("monitor_failed", exc_info=True)
            gone = self._runtime.database.commits.standby_gone
            await asyncio.sleep(STANDBY_REFRESH_SECONDS if gone else REFRESH_SECONDS)

    async def health(self) -> Health:
        """Readiness with its reasons. On the way it sets the gauges of what it reads; the others keep their values."""
        service = self._runtime.service.name
        reasons: list[str] = []  # why it cannot answer requests
        uncommitted: list[str] = []  # why no process can commit
        waits: list[str] = []  # why it cannot read or publish
        warnings: list[str] = []
        rows, oldest, parked_streams, lag = 0, 0.0, 0, 0
        standby_gone = False
        pool = self._runtime.database.pool
        try:
            # The pool waits that long again to take the connection back.
            async with asyncio.timeout(PATIENCE_SECONDS), pool.acquire(timeout=PATIENCE_SECONDS) as connection:
                if early := await ask_for_skew(connection, self._runtime.clock, MAX_SKEW / 2):
                    late = await ask_for_skew(connection, self._runtime.clock)
                    (reasons if late else warnings).append(late or early)
                pending = await _is_pending(self._schema, connection, reasons, warnings)
                if not pending:  # else tables and columns may be missing
                    standby_gone = await connection.fetchval("select commit_wait_seconds()") > COMMIT_SECONDS
                    await self._backlog.look(connection)
                    rows, oldest = self._backlog.rows, self._seconds_since(self._backlog.oldest)
                    OUTBOX_ROWS.labels(service).set(rows)
                    OUTBOX_OLDEST_SECONDS.labels(service).set(oldest)
                    snapshot = await connection.fetchval("select oldest_snapshot_seconds()")
                    OLDEST_SNAPSHOT_SECONDS.labels(service).set(snapshot)
                    DEADLINE_OVERDUE_SECONDS.labels(service).set(self._seconds_since(await next_due(connection)))
                    streams = await parked.streams(connection, self._group)
                    parked_streams = len(streams)
                    PARKED.labels(service).set(parked_streams)
                    PARKED_RECORDS.labels(service).set(sum(stream.records for stream in streams))
                    unsealed = await unsealed_agencies(connection)
                    AUDIT_UNSEALED_SECONDS.labels(service).set(
                        self._seconds_since(min(unsealed.values(), default=None))
                    )
                    deadlines = len(await parked_deadlines(connection))
                    PARKED_DEADLINES.labels(service).set(deadlines)
                    if deadlines:
                        warnings.append(f"parked deadlines: {deadlines} (muster deadlines list --service {service})")
                    if self._runtime.service.warnings is not None:
                        warnings += await self._runtime.service.warnings(connection, self._runtime.clock.now())
            if not pending and await self._disk_is_full():
                uncommitted.append("Postgres' disk is full")
        except asyncpg.SyntaxOrAccessError:
            if not reasons:
                raise
            # A newer schema has taken away what is looked at; one of the reasons says so.
        except RETRYABLE as error:
            refusal = self._runtime.database.address.refusal
            reasons.append(refusal or f"Postgres cannot be reached: {type(error).__name__}")
        for database in {*self._databases.values()}:
            if (refusal := database.address.refusal) and refusal not in reasons:
                living = database.pool.get_size()
                if living:
                    warnings.append(f"{refusal}; {living} sessions of it continue")
                else:
                    reasons.append(refusal)
        if standby_gone:
            uncommitted.append(STANDBY_GONE)
        for database in self._databases.values():
            database.commits.standby_gone = standby_gone
        if self._kafka is not None:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    waits += (await self._kafka.look()).reasons
                    lag = await self._consumer.lag() if self._consumer else 0
                LAG.labels(service).set(lag)
                self._lag_known_at = time.monotonic()
            except (KafkaError, OSError, TimeoutError) as error:
                waits.append(await self._runtime.kafka.failure(error))
                if time.monotonic() - self._lag_known_at > LAG_KEPT_SECONDS:
                    LAG.labels(service).set(0)
        if self._consumer is not None:
            waits += self._consumer.reasons
            warnings += self._consumer.warnings
        if self._relay is not None and self._relay.held is not None:
            waits.append(f"the relay cannot publish: {self._relay.held}")
        if self._scheduler is not None:
            held = Counter(self._scheduler.waiting.values())
            warnings += [f"deadlines wait: {why} (agencies: {count})" for why, count in held.items()]
        if self._sealer is not None and self._sealer.failed:
            warnings.append(f"audit rows cannot be sealed (agencies: {len(self._sealer.failed)}): see audit-finding.md")
        warnings += [*self._runtime.settings.warnings, *self._runtime.kafka.warnings]
        if issuer := await self._keys.reason():
            (warnings if self._keys.at_hand else reasons).append(issuer)
        ISSUER_KEYS_AGE_SECONDS.labels(service).set(self._keys.age)
        serving = not reasons and (not waits or self._is_proven())
        reasons += uncommitted + waits
        READY.labels(service).set(not reasons)
        self._note_change(reasons)
        for role, database in self._databases.items():
            POOL_IN_USE.labels(service, role).set(database.pool.get_size() - database.pool.get_idle_size())
        return Health(not reasons, serving, reasons, rows, oldest, lag, parked_streams, warnings)

    def _is_proven(self) -> bool:
        """Whether this process was ready for a while, or began long ago: it must not replace one that can do more."""
        return self._proven or time.monotonic() - self._began_at > UNPROVEN_SECONDS

    def _note_change(self, reasons: Sequence[str]) -> None:
        ready = not reasons
        if ready and not self._ready:
            self._ready_at = time.monotonic()
            _log.info("service_ready")
        elif self._ready and not ready:
            _log.warning("service_not_ready", reasons=reasons)
        self._proven |= ready and time.monotonic() - self._ready_at >= PROOF_SECONDS
        self._ready = ready

    def _seconds_since(self, instant: datetime | None) -> float:
        return 0.0 if instant is None else max(0.0, (self._runtime.clock.now() - instant).total_seconds())

    async def _disk_is_full(self) -> bool:
        full = [database.disk for database in self._databases.values() if database.disk.is_full]
        for disk in full:
            async with self._runtime.database.pool.acquire(timeout=PATIENCE_SECONDS) as connection:
                await disk.look(connection)
        return any(disk.is_full for disk in full)

    async def sandbox_state(self) -> dict[str, object]:
        """The state that the coordinator of the sandbox's clock reads from each process."""
        runtime = self._runtime
        async with runtime.database.connection() as connection:
            (written,) = await connection.fetch(
                "select (select count(*) from outbox) as outbox, (select max(latest) from agency_instant) as latest"
            )
            due = [
                self._sealer.due_since if self._sealer else None,
                await next_due(connection),
                *[await worker.next_due(connection) for worker in runtime.service.workers],
            ]
        async with asyncio.timeout(PATIENCE_SECONDS):
            lag = await self._consumer.lag() if self._consumer else 0
        return {
            "service": runtime.service.name,
            "instance": runtime.settings.instance,
            "now": runtime.clock.now().isoformat().replace("+00:00", "Z"),
            "latest": written["latest"],
            "next_due": min((d for d in due if d is not None), default=None),
            "outbox": written["outbox"],
            "lag": lag,
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


async def _is_pending(schema: Schema, connection: Connection, reasons: list[str], warnings: list[str]) -> bool:
    """Whether the schema lacks what is needed, asked at each look: a restored backup takes it back.

    Also says why it cannot be used. One that is too new is looked at: most of the work continues with it.
    """
    try:
        compared = await schema.compare(connection)
    except MigrationsMissing as error:
        reasons.append(str(error))
        return True
    if newer := ", ".join(compared.contracted):
        reasons.append(f"the schema is too new: {newer} changed what this process uses; it knows up to {schema.head}")
    if needed := compared.needed:
        lacking, there = ", ".join(needed), compared.database or "no version"
        reasons.append(
            f"migrations are pending: {lacking}; the schema is at {there}, and this process needs {schema.minimum}"
        )
    elif compared.behind:
        warnings.append(f"migrations are pending: {', '.join(compared.behind)}; this process works without them")
    return bool(compared.needed)

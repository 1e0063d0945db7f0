"""The state of a process: its readiness and its metrics."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain

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
from muster_runtime.messaging.kafka_topics import KafkaTopics
from muster_runtime.observability.seals import unsealed_agencies
from muster_runtime.observability.telemetry import (
    AUDIT_UNSEALED_SECONDS,
    DEADLINE_OVERDUE_SECONDS,
    DEADLINES_HELD_SECONDS,
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
    WARNINGS,
)
from muster_runtime.process.parts import WatchedDuties
from muster_runtime.scheduling import hold
from muster_runtime.scheduling.deadlines import next_due, parked_deadlines
from muster_runtime.service import Alerted, Runtime

# How often the metrics are brought up to date, at least.
REFRESH_SECONDS = 10.0

# The same while commits wait for a standby: work continues as soon as it is seen to be back.
STANDBY_REFRESH_SECONDS = 1.0

# How long the lag keeps its last value while Kafka does not answer. Then others may have the partitions, and alerts sum
# the lags of all processes.
LAG_KEPT_SECONDS = 30.0

# How long Postgres and Kafka may each take for their answers.
PATIENCE_SECONDS = 4.0

# How long a process must have been ready to be allowed to serve while it is not: by then, it has tried to read and
# publish.
PROOF_SECONDS = 10.0

# After this long, a process that never was may serve, too. By then, an operator has noticed if an upgrade is failing.
UNPROVEN_SECONDS = 900.0

# The subjects of warnings: each has its own MusterWarning alert. "service" has the service's own warnings, and those
# about something that has another alert.
_SUBJECTS = ("clock", "consumer", "kafka", "postgres", "schema", "secrets", "service")

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Findings:
    """What one health check finds.

    Why the process is unable to answer requests, why no process can commit, why this one waits to read or publish, and,
    by subject, warnings, which do not keep it from being ready.
    """

    unable: list[str] = field(default_factory=list)
    uncommitted: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    warnings: dict[str, list[str]] = field(default_factory=lambda: {about: [] for about in _SUBJECTS})
    rows: int = 0
    oldest: float = 0.0
    lag: int = 0
    parked_streams: int = 0


class Monitor:
    """Reports the state of one process."""

    def __init__(
        self,
        runtime: Runtime,
        api_database: Database,
        duties: WatchedDuties,
        keys: KeySource,
        kafka: KafkaTopics | None,
    ) -> None:
        self._runtime = runtime
        self._schema = runtime.service.schema
        self._databases = {"worker": runtime.database, "api": api_database}
        self._duties = duties
        self._keys = keys
        self._kafka = kafka
        self._ready = self._proven = False
        self._began_at = self._ready_at = self._looked_at = time.monotonic()
        self._lag_known_at = 0.0

    async def run(self) -> None:
        """Keep the metrics up to date until canceled. A recent request for the readiness counts as an update."""
        pause = 0.0
        while True:
            if time.monotonic() - self._looked_at >= pause:
                try:
                    await self.health()
                except Exception:  # monitoring must not stop the process
                    _log.warning("monitor_failed", exc_info=True)
            pause = STANDBY_REFRESH_SECONDS if self._runtime.database.commits.standby_gone else REFRESH_SECONDS
            await asyncio.sleep(max(self._looked_at + pause - time.monotonic(), STANDBY_REFRESH_SECONDS))

    async def health(self) -> Health:
        """Readiness with its reasons. Also sets the gauges of what it reads; the others keep their values."""
        found = _Findings()
        self._looked_at = time.monotonic()
        await self._look_at_postgres(found)
        await self._look_at_kafka(found)
        self._look_at_duties(found)
        if issuer := await self._keys.reason():
            if self._keys.at_hand:
                found.warnings["service"].append(Alerted(issuer))
            else:
                found.unable.append(issuer)
        service = self._runtime.service.name
        ISSUER_KEYS_AGE_SECONDS.labels(service).set(self._keys.age)
        serving = not found.unable and (not found.waits or self._is_proven())
        reasons = found.unable + found.uncommitted + found.waits
        READY.labels(service).set(not reasons)
        for about, shown in found.warnings.items():
            WARNINGS.labels(service, about).set(sum(not isinstance(warning, Alerted) for warning in shown))
        self._note_change(reasons)
        for role, database in self._databases.items():
            POOL_IN_USE.labels(service, role).set(database.pool.get_size() - database.pool.get_idle_size())
        warnings = [*chain.from_iterable(found.warnings.values())]
        return Health(
            not reasons, serving, reasons, found.rows, found.oldest, found.lag, found.parked_streams, warnings
        )

    async def _look_at_postgres(self, found: _Findings) -> None:
        database = self._runtime.database
        standby_gone = False
        try:
            async with (
                asyncio.timeout(PATIENCE_SECONDS),
                database.spare_connection(PATIENCE_SECONDS / 4) as connection,
            ):
                if early := await ask_for_skew(connection, self._runtime.clock, MAX_SKEW / 2):
                    late = await ask_for_skew(connection, self._runtime.clock)
                    (found.unable if late else found.warnings["clock"]).append(late or early)
                if not await _is_pending(self._schema, connection, found):  # else, tables or columns may be missing
                    standby_gone = await connection.fetchval("select commit_wait_seconds()") > COMMIT_SECONDS
                    await self._look_at_tables(connection, found)
                    if await self._disk_is_full(connection):
                        found.uncommitted.append("Postgres' disk is full")
        except asyncpg.SyntaxOrAccessError:
            if not found.unable:
                raise
            # A newer schema has taken away what is looked at; one of the reasons says so.
        except RETRYABLE as error:
            found.unable.append(database.address.refusal or f"Postgres cannot be reached: {type(error).__name__}")
        for each in {*self._databases.values()}:
            if (refusal := each.address.refusal) and refusal not in found.unable:
                if living := each.pool.get_size():
                    found.warnings["postgres"].append(f"{refusal}; {living} sessions of it continue")
                else:
                    found.unable.append(refusal)
        if standby_gone:
            found.uncommitted.append(STANDBY_GONE)
        for each in self._databases.values():
            each.commits.standby_gone = standby_gone

    async def _look_at_tables(self, connection: Connection, found: _Findings) -> None:
        service = self._runtime.service.name
        backlog = self._runtime.backlog
        await backlog.look(connection)
        found.rows, found.oldest = backlog.rows, self._seconds_since(backlog.oldest)
        OUTBOX_ROWS.labels(service).set(found.rows)
        OUTBOX_OLDEST_SECONDS.labels(service).set(found.oldest)
        OLDEST_SNAPSHOT_SECONDS.labels(service).set(await connection.fetchval("select oldest_snapshot_seconds()"))
        DEADLINE_OVERDUE_SECONDS.labels(service).set(self._seconds_since(await next_due(connection)))
        doubt = await hold.find_doubt(connection)
        DEADLINES_HELD_SECONDS.labels(service).set(self._seconds_since(doubt.held_since))
        if why := doubt.why_deadlines_wait(service):
            found.warnings["service"].append(Alerted(why))
        streams = await parked.streams(connection, self._runtime.group)
        found.parked_streams = len(streams)
        PARKED.labels(service).set(found.parked_streams)
        PARKED_RECORDS.labels(service).set(sum(stream.records for stream in streams))
        unsealed = await unsealed_agencies(connection)
        AUDIT_UNSEALED_SECONDS.labels(service).set(self._seconds_since(min(unsealed.values(), default=None)))
        deadlines = len(await parked_deadlines(connection))
        PARKED_DEADLINES.labels(service).set(deadlines)
        if deadlines:
            parked_now = f"parked deadlines: {deadlines} (muster deadlines list --service {service})"
            found.warnings["service"].append(Alerted(parked_now))
        if self._runtime.service.warnings is not None:
            found.warnings["service"] += await self._runtime.service.warnings(connection, self._runtime.clock.now())

    async def _look_at_kafka(self, found: _Findings) -> None:
        if self._kafka is None:
            return
        service = self._runtime.service.name
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                found.waits += (await self._kafka.look()).reasons
                found.lag = await self._duties.lag()
            LAG.labels(service).set(found.lag)
            self._lag_known_at = time.monotonic()
        except (KafkaError, OSError, TimeoutError) as error:
            found.waits.append(await self._runtime.kafka.failure(error))
            if time.monotonic() - self._lag_known_at > LAG_KEPT_SECONDS:
                LAG.labels(service).set(0)

    def _look_at_duties(self, found: _Findings) -> None:
        duties = self._duties
        if duties.consumer is not None:
            found.waits += duties.consumer.reasons
            found.warnings["consumer"] += duties.consumer.warnings
        if duties.relay is not None and duties.relay.held is not None:
            found.waits.append(f"the relay cannot publish: {duties.relay.held}")
        if duties.scheduler is not None:
            counts = Counter(duties.scheduler.waiting.values())
            waiting = [Alerted(f"deadlines wait: {why} (agencies: {count})") for why, count in counts.items()]
            found.warnings["service"] += waiting
        if duties.sealer is not None and duties.sealer.failed:
            agencies = len(duties.sealer.failed)
            unsealed = f"audit rows cannot be sealed (agencies: {agencies}): see audit-finding.md"
            found.warnings["service"].append(Alerted(unsealed))
        found.warnings["secrets"] += self._runtime.settings.warnings
        found.warnings["kafka"] += self._runtime.kafka.warnings

    def _is_proven(self) -> bool:
        """Whether this process was ready for a while, or started long ago: it must not replace one that can do more."""
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

    async def _disk_is_full(self, connection: Connection) -> bool:
        full = [database.disk for database in self._databases.values() if database.disk.is_full]
        for disk in full:
            await disk.look(connection)
        return any(disk.is_full for disk in full)


async def _is_pending(schema: Schema, connection: Connection, found: _Findings) -> bool:
    """Whether the schema lacks migrations that the code needs. Each check asks: a restored backup may lack them again.

    Also notes what is wrong with the schema. One that is too new is still read: most of the work continues on it.
    """
    try:
        compared = await schema.compare(connection)
    except MigrationsMissing as error:
        found.unable.append(str(error))
        return True
    if newer := ", ".join(compared.contracted):
        found.unable.append(
            f"the schema is too new: {newer} changed what this process uses; it knows up to {schema.head}"
        )
    if needed := compared.needed:
        lacking, there = ", ".join(needed), compared.database or "no version"
        found.unable.append(
            f"migrations are pending: {lacking}; the schema is at {there}, and this process needs {schema.minimum}"
        )
    elif compared.behind:
        behind = ", ".join(compared.behind)
        found.warnings["schema"].append(f"migrations are pending: {behind}; this process works without them")
    return bool(compared.needed)

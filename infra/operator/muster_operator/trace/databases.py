"""Reads what the four services' databases know about an ID or a path."""

import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncpg
from asyncpg.exceptions import TargetServerAttributeNotMatched

from muster_contracts import SERVICES, Envelope, Position, event_id, source_of
from muster_operator.reconcile.streams import within
from muster_operator.trace.facts import Attempt, Commit, Delivery, Facts, Parked, Progress, Published

# Where the row of an ID is, by the ID's prefix: service, table, column.
THINGS = {
    "enr": ("enrollment", "enrollment", "enrollment_id"),
    "atu": ("enrollment", "atu", "authorization_id"),
    "acc": ("enrollment", "data_use_acceptance", "acceptance_id"),
    "seat": ("entitlements", "seat", "seat_id"),
    "bat": ("entitlements", "operation", "operation_id"),
    "term": ("billing", "term", "id"),
    "inv": ("billing", "invoice", "id"),
    "pay": ("billing", "payment", "id"),
    "ren": ("billing", "renewal", "id"),
    "dlv": ("notify", "delivery", "id"),
    "whk": ("notify", "webhook", "id"),
    "rpl": ("notify", "replay", "id"),
}

# The limit for one query: no index covers the correlation ID, so it scans a table.
STATEMENT_SECONDS = 30

_UUID7 = re.compile(r"[a-z]+_([0-9a-f]{12})7[0-9a-f]{3}[89ab][0-9a-f]{15}")


@dataclass
class Thing:
    """What an ID names: its agencies, its known paths, and the instants when something happened to it."""

    id: str
    service: str | None = None  # the service that has its row
    agencies: set[str] = field(default_factory=set)
    correlation_ids: set[str] = field(default_factory=set)
    instants: set[datetime] = field(default_factory=set)

    def note(self, rows: "Sequence[asyncpg.Record]") -> None:
        """Add the agencies, paths, and instants of rows about it."""
        for row in rows:
            self.agencies.add(row["agency_id"])
            self.correlation_ids.add(row["correlation_id"])
            self.instants.add(row["recorded_at"])

    @property
    def is_known(self) -> bool:
        """Whether any database or topic mentions it."""
        return bool(self.agencies or self.correlation_ids)


def instant_of(id_: str) -> datetime | None:
    """When an ID was created, if it contains a UUIDv7 (RFC 9562, 5.7)."""
    match = _UUID7.fullmatch(id_)
    return datetime.fromtimestamp(int(match[1], 16) / 1000, UTC) if match else None


async def find_thing(admin_dsn: str, id_: str, limit: int, unseen: list[str]) -> Thing:
    """Look up an ID: its row, the audit rows and deliveries about it, and paths with that correlation ID."""
    thing = Thing(id_)
    if made_at := instant_of(id_):
        thing.instants.add(made_at)
    row = THINGS.get(id_.partition("_")[0])

    async def look(service: str, connection: "asyncpg.Connection[Any]") -> None:
        if row is not None and row[0] == service:
            await _read_row(connection, thing, *row)
        await _read_audit(connection, thing, limit)
        if service == "notify":
            await _read_deliveries(connection, thing, limit)

    await _each(admin_dsn, look, unseen)
    return thing


async def _read_row(connection: "asyncpg.Connection[Any]", thing: Thing, service: str, table: str, column: str) -> None:
    found = await connection.fetchrow(f"select * from {table} where {column} = $1", thing.id)  # noqa: S608 - ours
    if found is None:
        return
    thing.service = service
    thing.agencies.add(found["agency_id"])
    if found.get("correlation_id"):
        thing.correlation_ids.add(found["correlation_id"])
    thing.instants |= {value for value in found.values() if isinstance(value, datetime)}


async def _read_audit(connection: "asyncpg.Connection[Any]", thing: Thing, limit: int) -> None:
    rows = await connection.fetch(
        """
        select agency_id, correlation_id, recorded_at
        from audit
        where $1 in (subject, correlation_id, request_id)
        order by id desc
        limit $2
        """,
        thing.id,
        limit,
    )
    thing.note(rows)


async def _read_deliveries(connection: "asyncpg.Connection[Any]", thing: Thing, limit: int) -> None:
    rows = await connection.fetch(
        """
        select agency_id, correlation_id, recorded_at
        from delivery
        where $1 in (recipient, correlation_id, event_id)
        order by position desc
        limit $2
        """,
        thing.id,
        limit,
    )
    thing.note(rows)


async def read_facts(admin_dsn: str, correlation_ids: Collection[str], facts: Facts) -> None:
    """Add to `facts` what the databases know about these paths."""
    wanted = list(correlation_ids)

    async def look(service: str, connection: "asyncpg.Connection[Any]") -> None:
        facts.commits += [
            Commit(service=service, **row)
            for row in await connection.fetch(
                """
                select recorded_at as at, agency_id, actor, command, subject, request_id, correlation_id
                from audit
                where correlation_id = any($1)
                order by id
                """,
                wanted,
            )
        ]
        facts.add(await _waiting(connection, wanted))
        facts.progress[service] = await _progress(connection)
        if service == "notify":
            facts.deliveries += await _deliveries(connection, wanted)

    await _each(admin_dsn, look, facts.unseen)


async def _waiting(connection: "asyncpg.Connection[Any]", wanted: list[str]) -> list[Published]:
    rows = await connection.fetch(
        """
        select
            topic, agency_id, epoch, first_sequence, events, type, time, correlation_id, causation_id, traceparent
        from outbox
        where correlation_id = any($1)
        order by id
        """,
        wanted,
    )
    return [
        Published(
            row["topic"],
            Envelope(
                id=event_id(row["topic"], row["agency_id"], row["epoch"], sequence),
                source=source_of(row["topic"]),
                type=row["type"],
                time=row["time"],
                agency_id=row["agency_id"],
                epoch=row["epoch"],
                sequence=sequence,
                correlation_id=row["correlation_id"],
                causation_id=row["causation_id"],
                traceparent=row["traceparent"],
            ),
        )
        for row in rows
        for sequence in range(row["first_sequence"], row["first_sequence"] + row["events"])
    ]


async def _progress(connection: "asyncpg.Connection[Any]") -> Progress:
    applied = await connection.fetch("select topic, agency_id, epoch, last_sequence from applied")
    parked = await connection.fetch(
        """
        select distinct on (topic, agency_id) topic, agency_id, s.parked_at, s.reason, e.epoch, e.sequence
        from parked_stream as s
        join parked_event as e using (consumer_group, topic, agency_id)
        order by topic, agency_id, e.epoch, e.sequence
        """
    )
    return Progress(
        {(row["topic"], row["agency_id"]): Position(row["epoch"], row["last_sequence"]) for row in applied},
        {
            (row["topic"], row["agency_id"]): Parked(
                row["parked_at"], row["reason"], Position(row["epoch"], row["sequence"])
            )
            for row in parked
        },
    )


async def _deliveries(connection: "asyncpg.Connection[Any]", wanted: list[str]) -> list[Delivery]:
    rows = await connection.fetch(
        """
        select
            id, recorded_at as at, agency_id, event_id, event_type, correlation_id, channel, recipient, state,
            next_attempt_at
        from delivery
        where correlation_id = any($1)
        order by position
        """,
        wanted,
    )
    attempts: dict[str, list[Attempt]] = {row["id"]: [] for row in rows}
    for row in await connection.fetch(
        """
        select delivery_id, attempted_at as at, number, milliseconds, outcome, detail
        from delivery_attempt
        where delivery_id = any($1)
        order by delivery_id, number
        """,
        list(attempts),
    ):
        delivery_id, at, number, milliseconds, outcome, detail = row
        attempts[delivery_id].append(Attempt(at, number, milliseconds, outcome, detail))
    return [Delivery(**row, attempts=attempts[row["id"]]) for row in rows]


async def _each(
    admin_dsn: str, look: Callable[[str, "asyncpg.Connection[Any]"], Awaitable[None]], unseen: list[str]
) -> None:
    """Query each service's schema; note a service that does not answer, once. Raises if the server is a standby."""
    for service in SERVICES:

        async def read(connection: "asyncpg.Connection[Any]", service: str = service) -> None:
            await connection.execute(f"set local statement_timeout = '{STATEMENT_SECONDS}s'")
            await look(service, connection)

        try:
            await within(admin_dsn, service, read)
        except TargetServerAttributeNotMatched:
            raise
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            note = f"the database of {service}: {error or type(error).__name__}"
            if note not in unseen:
                unseen.append(note)

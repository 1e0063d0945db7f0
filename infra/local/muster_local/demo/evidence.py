"""The proof's evidence: the raw log, each service's tables, the receiver's messages, and the mail sink's files."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from prometheus_client.parser import text_string_to_metric_families

from muster_contracts import SERVICES, Position, topics
from muster_local.demo.cast import Agency
from muster_local.demo.log import Fact, Stream, read_all
from muster_local.demo.new_features import Use
from muster_local.demo.witness import Comparison
from muster_local.receiver import Message
from muster_local.stack import Stack

# The topics that each service applies, from the contracts.
READ: Mapping[str, frozenset[str]] = {
    service: frozenset(name for name, topic in topics().items() if service in topic.readers) for service in SERVICES
}

# A deadline is late if its service handles it more than this many seconds after its instant.
_LATE_SECONDS = 1.0


@dataclass(frozen=True)
class Books:
    """The contents of one service's runtime tables."""

    produced: Mapping[Stream, Position]
    applied: Mapping[Stream, Position]
    outbox: int
    parked: int
    commands: int
    late: int


@dataclass(frozen=True)
class Term:
    """A term in billing that has begun."""

    id: str
    enrollment_id: str
    number: int


@dataclass(frozen=True)
class Entry:
    """A row of billing's ledger: debits are positive, credits negative."""

    transaction_id: int
    currency: str
    amount_minor: int


@dataclass(frozen=True)
class Delivery:
    """A row of notify's deliveries."""

    id: str
    event_id: str
    rule: str
    channel: str
    recipient: str
    state: str


@dataclass(frozen=True)
class Proposal:
    """A row of entitlements' proposals."""

    agency_id: str
    route: str
    path: str
    state: str
    proposed_by: str
    decided_by: str | None
    decided_at: datetime | None


@dataclass(frozen=True)
class UsageSum:
    """A row of entitlements' usage sums: how much all people of an agency used of a feature within a period."""

    agency_id: str
    feature: str
    starts_at: datetime
    ends_at: datetime
    used: int


@dataclass(frozen=True)
class Evidence:
    """Everything found at the end of the year."""

    agencies: Sequence[Agency]
    commands_sent: Mapping[str, int]
    instants: frozenset[datetime]
    facts: Sequence[Fact]
    books: Mapping[str, Books]
    terms: Sequence[Term]
    invoiced_terms: Sequence[str]
    ledger: Sequence[Entry]
    seats_in_use: Mapping[str, int]
    deliveries: Sequence[Delivery]
    messages: Sequence[Message]
    mail_ids: Sequence[str]
    proposals: Sequence[Proposal]
    usage_sums: Sequence[UsageSum]
    uses: Sequence[Use]
    comparisons: Sequence[Comparison]


async def gather(
    stack: Stack,
    agencies: Sequence[Agency],
    commands_sent: Mapping[str, int],
    instants: frozenset[datetime],
    messages: Sequence[Message],
    *,
    uses: Sequence[Use] = (),
    comparisons: Sequence[Comparison] = (),
) -> Evidence:
    """Gather the evidence. The clock must be stopped and every service quiet."""
    facts = await read_all(stack.kafka, stack.topic_prefix)
    books = await asyncio.gather(*(_books(stack, service) for service in SERVICES))
    billing = await _connect(stack, "billing")
    entitlements = await _connect(stack, "entitlements")
    notify = await _connect(stack, "notify")
    try:
        return Evidence(
            agencies=agencies,
            commands_sent=commands_sent,
            instants=instants,
            facts=facts,
            books=dict(zip(SERVICES, books, strict=True)),
            terms=[
                Term(**row)
                for row in await billing.fetch(
                    "select id, enrollment_id, number from term where state in ('running', 'ended')"
                )
            ],
            invoiced_terms=[
                row["term_id"] for row in await billing.fetch("select term_id from invoice where state <> 'draft'")
            ],
            ledger=[
                Entry(**row)
                for row in await billing.fetch("select transaction_id, currency, amount_minor from ledger_entry")
            ],
            seats_in_use={
                row["agency_id"]: row["in_use"]
                for row in await entitlements.fetch("select agency_id, in_use from pool")
            },
            deliveries=[
                Delivery(**row)
                for row in await notify.fetch(
                    "select id, event_id, rule, channel, recipient, state from delivery order by position"
                )
            ],
            messages=messages,
            mail_ids=_mail_ids(stack.mail_dir),
            proposals=[
                Proposal(**row)
                for row in await entitlements.fetch(
                    "select agency_id, route, path, state, proposed_by, decided_by, decided_at from proposal"
                )
            ],
            usage_sums=[
                UsageSum(**row)
                for row in await entitlements.fetch(
                    "select agency_id, feature, starts_at, ends_at, used from usage_sum where subject_ref = ''"
                )
            ],
            uses=uses,
            comparisons=comparisons,
        )
    finally:
        await asyncio.gather(billing.close(), entitlements.close(), notify.close())


async def _connect(stack: Stack, service: str) -> "asyncpg.Connection[Any]":
    return await asyncpg.connect(stack.admin_dsn, server_settings={"search_path": service})


async def _books(stack: Stack, service: str) -> Books:
    connection = await _connect(stack, service)
    try:
        return Books(
            produced=_positions(await connection.fetch("select topic, agency_id, epoch, last_sequence from stream")),
            applied=_positions(await connection.fetch("select topic, agency_id, epoch, last_sequence from applied")),
            outbox=await connection.fetchval("select count(*) from outbox"),
            parked=await connection.fetchval(
                "select (select count(*) from parked_stream) + (select count(*) from parked_event)"
            ),
            # The audit trail has each executed command. What the service does on its own has no request ID.
            commands=await connection.fetchval(
                "select count(distinct request_id) from audit where request_id is not null"
            ),
            late=await _late(stack.service_url(service)),
        )
    finally:
        await connection.close()


def _positions(rows: Sequence[Mapping[str, Any]]) -> dict[Stream, Position]:
    return {(row["topic"], row["agency_id"]): Position(row["epoch"], row["last_sequence"]) for row in rows}


async def _late(url: str) -> int:
    """The number of deadlines that the process has handled late since it started."""
    async with httpx.AsyncClient(trust_env=False) as http:
        metrics = (await http.get(f"{url}/metrics")).raise_for_status().text
    (lateness,) = (
        family
        for family in text_string_to_metric_families(metrics)
        if family.name == "muster_deadline_lateness_seconds"
    )
    handled = sum(sample.value for sample in lateness.samples if sample.name.endswith("_count"))
    in_time = sum(
        sample.value
        for sample in lateness.samples
        if sample.name.endswith("_bucket") and float(sample.labels["le"]) == _LATE_SECONDS
    )
    return int(handled - in_time)


def _mail_ids(folder: Path) -> list[str]:
    return [
        str(message_from_bytes(file.read_bytes())["Message-ID"]).strip("<> ").partition("@")[0]
        for file in sorted(folder.glob("*.eml"))
    ]

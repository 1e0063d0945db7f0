"""The oracle of the long run: the demonstration's proof of the books, after the agencies' lives have paused."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import asyncpg

from muster_contracts import SERVICES, topics
from muster_local.demo.evidence import Evidence, gather
from muster_local.demo.proof.deliveries import mails_arrived, one_delivery_per_intent, webhooks_verified
from muster_local.demo.proof.line import Line
from muster_local.demo.proof.program import ledger_balances, one_term_and_invoice, seats_within_cap
from muster_local.demo.proof.streams import effects_once, nothing_waits, streams_applied, streams_gapless
from muster_local.receiver import Message
from muster_local.stack import Stack
from tests.faults.live.stage import Stage
from tests.support.eventually import eventually

REST_SECONDS = 180

# How often the evidence is gathered if a stream has grown each time.
GATHERINGS = 5

_PRODUCED = " union all ".join(f"select topic, agency_id, epoch, last_sequence from {s}.stream" for s in SERVICES)

Lines = Sequence[Callable[[Evidence], Line]]

# What holds whenever all is at rest, with webhooks or without; the other lines are about a whole year.
AT_REST: Lines = (
    streams_gapless,
    streams_applied,
    effects_once,
    seats_within_cap,
    one_term_and_invoice,
    ledger_balances,
    mails_arrived,
    nothing_waits,
)

LINES: Lines = (*AT_REST, one_delivery_per_intent, webhooks_verified)


async def reach(stage: Stage) -> tuple[Evidence, list[str]]:
    """Wait until all is at rest, or time is up; returns the evidence, and what is wrong."""
    unrest = []
    try:
        await eventually(lambda: at_rest(stage.stack), timeout=REST_SECONDS)
    except AssertionError as error:
        unrest = [f"not at rest after {REST_SECONDS} s: {error}"]
    evidence = await gather_one_state(stage.stack, stage.program.commands, stage.receiver.messages())
    return evidence, unrest + untrue(LINES, evidence)


async def gather_one_state(stack: Stack, commands: Mapping[str, int], messages: Sequence[Message]) -> Evidence:
    """Gather the evidence, again if a stream has grown meanwhile: once a minute, unsealed rows are sealed.

    If it never stays the same, or does not come to rest again, the last evidence counts, and its lines say so.
    """
    for number in range(GATHERINGS):
        if number:
            with suppress(AssertionError):
                await eventually(lambda: at_rest(stack), timeout=REST_SECONDS)
        before = await _read_produced(stack)
        evidence = await gather(stack, [], commands, frozenset(), messages)
        if await _read_produced(stack) == before:
            break
    return evidence


def untrue(lines: Lines, evidence: Evidence) -> list[str]:
    """The claims that do not hold, and why."""
    return [f"{line.claim}: {line.detail}" for line in (line(evidence) for line in lines) if not line.ok]


async def _read_produced(stack: Stack) -> list[asyncpg.Record]:
    admin = await asyncpg.connect(stack.admin_dsn)
    try:
        return list(await admin.fetch(f"{_PRODUCED} order by 1, 2"))
    finally:
        await admin.close()


async def at_rest(stack: Stack) -> bool:
    """Outboxes are empty, every stream is applied in every service that reads it, and every delivery is made."""
    admin = await asyncpg.connect(stack.admin_dsn)
    try:
        for service in SERVICES:
            rows = await admin.fetchval(f"select count(*) from {service}.outbox")
            assert rows == 0, f"{rows} runs in the outbox of {service}"
            behind = await admin.fetch(
                f"({_PRODUCED}) except select topic, agency_id, epoch, last_sequence from {service}.applied"
            )
            behind = [row for row in behind if service in topics()[row["topic"]].readers]
            assert not behind, f"{service} has not applied {[tuple(row) for row in behind[:3]]}"
        waiting = await admin.fetchval("select count(*) from notify.delivery where state <> 'delivered'")
        assert waiting == 0, f"{waiting} deliveries are to be made"
        return True
    finally:
        await admin.close()

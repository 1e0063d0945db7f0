"""`muster rebuild`: a projection built anew from the topics beside the live one, compared, and put in its place.

The rows are made by the very functions that keep the live projection, in a schema of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import asyncpg
import typer
from aiokafka import ConsumerRecord
from pydantic import ValidationError
from rich.table import Table

from muster_contracts import Erasure, Event, MalformedRecord, read_headers
from muster_contracts.enrollment import ContactErased, ContactRecorded
from muster_contracts.entitlements import PersonErased, PersonRecorded
from muster_local.stack import DEFAULT_HOME
from muster_local.target import HomeOption, Target, console, run
from muster_local.topic_log import TopicLog
from muster_notify.handlers import PERSON
from muster_notify.repository import directory
from muster_runtime.clock import SystemClock

_SCHEMA = "rebuilt"
_KINDS: Mapping[str, type[Event]] = {
    cls.event_type: cls for cls in (ContactRecorded, ContactErased, PersonRecorded, PersonErased)
}


class Projection(StrEnum):
    """What can be built anew."""

    NOTIFY_DIRECTORY = "notify.directory"


@dataclass(frozen=True)
class Outcome:
    """How the rebuilt rows differ from the live ones; people are told by their references alone."""

    rows: int
    missing: Sequence[str]
    surplus: Sequence[str]
    unread: int

    @property
    def same(self) -> bool:
        """Whether the live projection is right."""
        return not self.missing and not self.surplus


def rebuild(
    projection: Annotated[Projection, typer.Argument(help="What to build anew.")],
    swap: Annotated[bool, typer.Option("--swap", help="Put it in the place of the live one.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the audit trail with --swap.")] = "",
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Build a projection from the topics beside the live one and show the difference; with --swap, put it in.

    The exit status is 1 where they differ and nothing was swapped.
    """
    if swap and not reason:
        raise typer.BadParameter("--swap needs a --reason")
    target = Target.find(home).require("admin_dsn", "bootstrap")
    outcome = run(rebuild_directory(target, reason if swap else None))
    table = Table("agency / reference", f"{projection}", box=None, pad_edge=False)
    for key in outcome.missing:
        table.add_row(key, "in the topics, not or not so in the projection")
    for key in outcome.surplus:
        table.add_row(key, "in the projection, not or not so in the topics")
    console.print(f"{outcome.rows:,} rows from the topics; {outcome.unread} records could not be read")
    console.print("The projection is right." if outcome.same else table)
    if swap:
        console.print("The rebuilt projection is in place.")
    elif not outcome.same:
        raise typer.Exit(1)


async def rebuild_directory(target: Target, reason: str | None) -> Outcome:
    """Build notify's directory anew; swap it in where a reason is given.

    A swap holds the consumer off the table while it reads what came last, so that nothing applied is lost; what
    the consumer then applies once more makes no difference.
    """
    connection = await asyncpg.connect(target.admin_dsn, server_settings={"search_path": f"{_SCHEMA}, notify"})
    topics = {ContactRecorded.topic, PersonRecorded.topic}
    try:
        await connection.execute(f"drop schema if exists {_SCHEMA} cascade")
        await connection.execute(f"create schema {_SCHEMA}")
        await connection.execute(f"create table {_SCHEMA}.directory (like notify.directory including all)")
        async with TopicLog.open(target.bootstrap, target.topic_prefix, topics) as log:
            unread = await _apply(connection, log)
            async with connection.transaction():
                if reason is not None:
                    await connection.execute("lock table notify.directory in share row exclusive mode")
                    unread += await _apply(connection, log)
                outcome = await _compare(connection, unread)
                if reason is not None:
                    await _swap(connection, outcome, reason)
        return outcome
    finally:
        await connection.execute(f"drop schema if exists {_SCHEMA} cascade")
        await connection.close()


async def _apply(connection: "asyncpg.Connection[Any]", log: TopicLog) -> int:
    """Apply what the topics hold, in order; answer how many records could not be read."""
    unread = 0
    async for records in log.batches():
        for record in records:
            event = _event(record)
            if event is None:
                unread += 1
            elif isinstance(event, Erasure):
                await directory.erase(connection, [(event.agency_id, event.subject_ref)])
            elif isinstance(event, ContactRecorded):
                await directory.record(connection, [event], [event.role])
            elif isinstance(event, PersonRecorded):
                await directory.record(connection, [event], [PERSON])
    return unread


def _event(record: "ConsumerRecord[bytes, bytes]") -> Event | None:
    try:
        envelope = read_headers(record.headers)
        cls = _KINDS[envelope.type]
        if issubclass(cls, Erasure):
            return cls(agency_id=envelope.agency_id, subject_ref=(record.key or b"").decode())
        return cls.model_validate_json(record.value or b"")
    except (MalformedRecord, KeyError, ValidationError, UnicodeDecodeError):
        return None


async def _compare(connection: "asyncpg.Connection[Any]", unread: int) -> Outcome:
    missing = await connection.fetch(
        """
        select agency_id || ' / ' || subject_ref as key
        from (select * from rebuilt.directory except select * from notify.directory) as d
        order by key
        """
    )
    surplus = await connection.fetch(
        """
        select agency_id || ' / ' || subject_ref as key
        from (select * from notify.directory except select * from rebuilt.directory) as d
        order by key
        """
    )
    rows = await connection.fetchval("select count(*) from rebuilt.directory")
    return Outcome(rows, [row["key"] for row in missing], [row["key"] for row in surplus], unread)


async def _swap(connection: "asyncpg.Connection[Any]", outcome: Outcome, reason: str) -> None:
    """The content alone changes hands: the table keeps its policies and rights."""
    await connection.execute("delete from notify.directory")
    await connection.execute("insert into notify.directory select * from rebuilt.directory")
    await connection.execute(
        """
        insert into notify.audit (recorded_at, agency_id, actor, command, subject, reason, after, correlation_id)
        values ($1, '*', 'muster rebuild', 'RebuildProjection', 'notify.directory', $2, $3, '')
        """,
        SystemClock().now(),
        reason,
        f'{{"missing": {len(outcome.missing)}, "surplus": {len(outcome.surplus)}}}',
    )

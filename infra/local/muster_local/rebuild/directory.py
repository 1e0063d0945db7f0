"""`notify.directory`: who an agency's people are.

The rows are made by the very functions that keep the live projection, in a schema of their own.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from aiokafka import ConsumerRecord
from pydantic import ValidationError

from muster_contracts import Envelope, Erasure, Event, MalformedRecord, read_headers
from muster_contracts.enrollment import ContactErased, ContactRecorded
from muster_contracts.entitlements import PersonErased, PersonRecorded
from muster_local.rebuild.projection import Difference, Projection
from muster_local.target import Target
from muster_local.topic_log import TopicLog
from muster_notify.handlers import PERSON
from muster_notify.repository import directory
from muster_runtime.clock import SystemClock

_SCHEMA = "rebuilt"
_KINDS: Mapping[str, type[Event]] = {
    cls.event_type: cls for cls in (ContactRecorded, ContactErased, PersonRecorded, PersonErased)
}


class Directory:
    """Notify's directory, in a table beside it."""

    def __init__(self, connection: "asyncpg.Connection[Any]", log: TopicLog) -> None:
        self.records = 0
        self.unread = 0
        self._connection = connection
        self._log = log

    @classmethod
    @asynccontextmanager
    async def open(cls, target: Target) -> AsyncIterator[Projection]:
        """Make the table, and drop it in the end."""
        connection = await asyncpg.connect(target.admin_dsn, server_settings={"search_path": f"{_SCHEMA}, notify"})
        topics = {ContactRecorded.topic, PersonRecorded.topic}
        try:
            await connection.execute(f"drop schema if exists {_SCHEMA} cascade")
            await connection.execute(f"create schema {_SCHEMA}")
            await connection.execute(f"create table {_SCHEMA}.directory (like notify.directory including all)")
            await connection.execute(
                f"""
                create table {_SCHEMA}.position (
                    topic text,
                    agency_id text,
                    key bytea,
                    epoch integer not null,
                    sequence bigint not null,
                    primary key (topic, agency_id, key)
                )
                """
            )
            async with TopicLog.open(target.bootstrap, target.topic_prefix, topics) as log:
                yield cls(connection, log)
        finally:
            await connection.execute(f"drop schema if exists {_SCHEMA} cascade")
            await connection.close()

    async def replay(self) -> None:
        """Apply what the topics hold."""
        async for records in self._log.batches():
            for record in records:
                self.records += 1
                envelope, event = _read(record)
                if envelope is None or event is None:
                    self.unread += 1
                elif not await self._goes_on(record, envelope):
                    continue
                elif isinstance(event, Erasure):
                    await directory.erase(self._connection, [(event.agency_id, event.subject_ref)])
                elif isinstance(event, ContactRecorded):
                    await directory.record(self._connection, [event], [event.role])
                elif isinstance(event, PersonRecorded):
                    await directory.record(self._connection, [event], [PERSON])

    async def _goes_on(self, record: "ConsumerRecord[bytes, bytes]", envelope: Envelope) -> bool:
        """Keep a record's position; False where its key has been read up to there: a repetition changes nothing."""
        goes_on: bool | None = await self._connection.fetchval(
            """
            insert into rebuilt.position as p (topic, agency_id, key, epoch, sequence)
            values ($1, $2, $3, $4, $5)
            on conflict (topic, agency_id, key) do update
            set epoch = excluded.epoch, sequence = excluded.sequence
            where (excluded.epoch, excluded.sequence) > (p.epoch, p.sequence)
            returning true
            """,
            record.topic,
            envelope.agency_id,
            record.key or b"",
            envelope.epoch,
            envelope.sequence,
        )
        return goes_on is True

    async def compare(self) -> Sequence[Difference]:
        """The rows that are in one of the tables alone, or not so in the other."""
        rows = await self._connection.fetch(
            """
            select agency_id || ' / ' || subject_ref as key, 'in the topics, not or not so in the projection' as found
            from (select * from rebuilt.directory except select * from notify.directory) as d
            union all
            select agency_id || ' / ' || subject_ref as key, 'in the projection, not or not so in the topics' as found
            from (select * from notify.directory except select * from rebuilt.directory) as d
            order by key
            """
        )
        return [Difference(**row) for row in rows]

    async def swap(self, reason: str) -> Sequence[Difference]:
        """Exchange the content alone: the table keeps its policies and rights.

        The consumer is held off the table while what came last is read, so that nothing applied is lost; what it
        then applies once more makes no difference.
        """
        async with self._connection.transaction():
            await self._connection.execute("lock table notify.directory in share row exclusive mode")
            await self.replay()
            differences = await self.compare()
            if differences:
                await self._put_in(reason, len(differences))
        return differences

    async def _put_in(self, reason: str, differences: int) -> None:
        await self._connection.execute("delete from notify.directory")
        await self._connection.execute("insert into notify.directory select * from rebuilt.directory")
        await self._connection.execute(
            """
            insert into notify.audit (recorded_at, agency_id, actor, command, subject, reason, after, correlation_id)
            values ($1, '*', 'muster rebuild', 'RebuildProjection', 'notify.directory', $2, $3, '')
            """,
            SystemClock().now(),
            reason,
            json.dumps({"differences": differences}),
        )


def _read(record: "ConsumerRecord[bytes, bytes]") -> tuple[Envelope | None, Event | None]:
    """A record's envelope and event; None where it cannot be read."""
    try:
        envelope = read_headers(record.headers)
        cls = _KINDS[envelope.type]
        if issubclass(cls, Erasure):
            return envelope, cls(agency_id=envelope.agency_id, subject_ref=(record.key or b"").decode())
        return envelope, cls.model_validate_json(record.value or b"")
    except (MalformedRecord, KeyError, ValidationError, UnicodeDecodeError):
        return None, None

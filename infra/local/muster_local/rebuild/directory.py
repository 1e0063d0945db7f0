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

from muster_contracts import Erasure, Event, MalformedRecord, read_headers
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
                event = _event(record)
                if event is None:
                    self.unread += 1
                elif isinstance(event, Erasure):
                    await directory.erase(self._connection, [(event.agency_id, event.subject_ref)])
                elif isinstance(event, ContactRecorded):
                    await directory.record(self._connection, [event], [event.role])
                elif isinstance(event, PersonRecorded):
                    await directory.record(self._connection, [event], [PERSON])

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


def _event(record: "ConsumerRecord[bytes, bytes]") -> Event | None:
    try:
        envelope = read_headers(record.headers)
        cls = _KINDS[envelope.type]
        if issubclass(cls, Erasure):
            return cls(agency_id=envelope.agency_id, subject_ref=(record.key or b"").decode())
        return cls.model_validate_json(record.value or b"")
    except (MalformedRecord, KeyError, ValidationError, UnicodeDecodeError):
        return None

"""`notify.directory`: each agency's people.

The functions that maintain the live projection also create the rebuilt rows, in temporary tables that no other session
reads. Nothing is locked meanwhile. At the end, only rows that differ are corrected.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import groupby, islice
from operator import itemgetter

import asyncpg
from pydantic import ValidationError

from muster_contracts import Envelope, Erasure, Event, MalformedRecord, Position, read_headers
from muster_contracts.enrollment import ContactErased, ContactRecorded
from muster_contracts.entitlements import PersonErased, PersonRecorded
from muster_notify.domain.contacts import PERSON
from muster_notify.repository import deliveries, directory
from muster_runtime.database.transactions import Connection, Database, UnitOfWork
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.topic_log import Record, TopicLog
from muster_runtime.observability import audit
from muster_runtime.projection import Difference, Projection, correction
from muster_runtime.settings import Settings

# Topic, agency and record key.
_Key = tuple[str, str, bytes]

_KINDS: Mapping[str, type[Event]] = {
    cls.event_type: cls for cls in (ContactRecorded, ContactErased, PersonRecorded, PersonErased)
}


# How many people of one agency one transaction corrects.
STEP = 1_000

# A person who differs between the two tables appears twice.
_ONLY_LIVE = "in the projection, but missing or different in the topics"
_ONLY_REBUILT = "in the topics, but missing or different in the projection"


class Directory(Projection):
    """Notify's directory, rebuilt in a second table."""

    def __init__(self, connection: Connection, database: Database, log: TopicLog) -> None:
        super().__init__(log)
        self._connection = connection
        self._database = database

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, database: Database) -> AsyncIterator[Projection]:
        """Create the table in a session that stays open until the end, and open the topics.

        In that session, the temporary table shadows the live one, so statements that name no schema use the temporary
        one.
        """
        topics = {ContactRecorded.topic, PersonRecorded.topic}
        async with database.connection() as connection:
            await connection.execute(
                """
                create temporary table directory (like notify.directory including all);
                create temporary table position (
                    topic text,
                    agency_id text,
                    key bytea,
                    epoch integer not null,
                    sequence bigint not null,
                    primary key (topic, agency_id, key)
                );
                """
            )
            try:
                async with TopicLog.open(KafkaConnection(settings), settings.topic_prefix, topics) as log:
                    yield cls(connection, database, log)
            finally:
                # A pooler may keep the session and give it to a serving process.
                if not connection.is_closed():
                    await connection.execute("drop table pg_temp.directory, pg_temp.position")

    async def replay(self) -> None:
        """Apply the topics' records."""
        async for records in self._log.batches():
            self.records += len(records)
            latest: dict[_Key, tuple[Position, Event]] = {}
            for record in records:
                envelope, event = _read(record)
                if envelope is None or event is None:
                    self._malformed += 1
                    continue
                key = (record.topic, envelope.agency_id, record.key or b"")
                position = Position(envelope.epoch, envelope.sequence)
                if key not in latest or position > latest[key][0]:
                    latest[key] = (position, event)
            await self._apply(await self._going_on(latest))

    async def _going_on(self, latest: Mapping[_Key, tuple[Position, Event]]) -> list[Event]:
        """Store the positions; returns the events of keys that advance. A repeated record changes nothing."""
        rows = await self._connection.fetch(
            """
            insert into pg_temp.position as p (topic, agency_id, key, epoch, sequence)
            select * from unnest($1::text[], $2::text[], $3::bytea[], $4::integer[], $5::bigint[])
            on conflict (topic, agency_id, key) do update
            set epoch = excluded.epoch, sequence = excluded.sequence
            where (excluded.epoch, excluded.sequence) > (p.epoch, p.sequence)
            returning topic, agency_id, key
            """,
            [topic for topic, _, _ in latest],
            [agency_id for _, agency_id, _ in latest],
            [key for _, _, key in latest],
            [epoch for (epoch, _), _ in latest.values()],
            [sequence for (_, sequence), _ in latest.values()],
        )
        return [latest[(row["topic"], row["agency_id"], row["key"])][1] for row in rows]

    async def _apply(self, events: Sequence[Event]) -> None:
        """Apply these events, each about a different person."""
        erased = [(event.agency_id, event.subject_ref) for event in events if isinstance(event, Erasure)]
        people = [event for event in events if isinstance(event, ContactRecorded | PersonRecorded)]
        roles = [person.role if isinstance(person, ContactRecorded) else PERSON for person in people]
        await directory.delete_people(self._connection, erased)
        await directory.save_people(self._connection, people, roles)

    async def compare(self) -> Sequence[Difference]:
        """The rows that are in only one of the tables, or that differ."""
        return [_difference(*row) for row in await self._differing()]

    async def swap(self, reason: str) -> Sequence[Difference]:
        """Correct the people who differ, STEP people of an agency per transaction, so that no lock is held for long.

        Under the agency's lock, the consumer applies nothing, and the latest records are read, so nothing applied is
        lost. If the consumer then applies an event again, the result is the same.
        """
        suspects = sorted({(agency_id, subject_ref) for agency_id, subject_ref, _ in await self._differing()})
        differences: list[Difference] = []
        context = correction(self._database.clock.now())
        for agency_id, keys in groupby(suspects, key=itemgetter(0)):
            left = (subject_ref for _, subject_ref in keys)
            while step := list(islice(left, STEP)):
                async with self._database.write(agency_id, context=context) as uow:
                    await self.replay()
                    corrected = await _correct(uow, agency_id, step, await self._people(agency_id, step))
                    if corrected:
                        audit.record(
                            uow,
                            command="RebuildProjection",
                            agency_id=agency_id,
                            subject="notify.directory",
                            after={"differences": len(corrected)},
                            reason=reason,
                        )
                differences += corrected
        return differences

    async def _people(self, agency_id: str, subject_refs: Sequence[str]) -> list[asyncpg.Record]:
        """These people's rows in the rebuilt table."""
        return await self._connection.fetch(
            """
            select subject_ref, role, name, email
            from pg_temp.directory
            where agency_id = $1 and subject_ref = any($2::text[])
            """,
            agency_id,
            subject_refs,
        )

    async def _differing(self) -> list[tuple[str, str, str]]:
        rows = await self._connection.fetch(
            """
            select agency_id, subject_ref, $1::text as found
            from (select * from pg_temp.directory except select * from notify.directory) as d
            union all
            select agency_id, subject_ref, $2::text as found
            from (select * from notify.directory except select * from pg_temp.directory) as d
            order by agency_id, subject_ref
            """,
            _ONLY_REBUILT,
            _ONLY_LIVE,
        )
        return [(row["agency_id"], row["subject_ref"], row["found"]) for row in rows]


async def _correct(
    uow: UnitOfWork, agency_id: str, subject_refs: Sequence[str], rebuilt: Sequence[asyncpg.Record]
) -> list[Difference]:
    """Make these people's rows equal to the rebuilt ones. Returns the differences.

    E-mails that wait for a role which someone now has become due.
    """
    columns = [[row[name] for row in rebuilt] for name in ("subject_ref", "role", "name", "email")]
    gone = await uow.connection.fetch(
        """
        delete from directory as d
        where
            d.agency_id = $1 and d.subject_ref = any($2::text[])
            and not exists (
                select
                from unnest($3::text[], $4::text[], $5::text[], $6::text[]) as r (subject_ref, role, name, email)
                where
                    r.subject_ref = d.subject_ref
                    and (r.role, r.name, r.email) is not distinct from (d.role, d.name, d.email)
            )
        returning d.subject_ref
        """,
        agency_id,
        subject_refs,
        *columns,
    )
    come = await uow.connection.fetch(
        """
        insert into directory (agency_id, subject_ref, role, name, email)
        select $1::text, r.*
        from unnest($2::text[], $3::text[], $4::text[], $5::text[]) as r
        on conflict (agency_id, subject_ref) do nothing
        returning subject_ref, role
        """,
        agency_id,
        *columns,
    )
    roles = [row["role"] for row in come]
    await deliveries.save_waiting_as_due(uow.connection, [agency_id] * len(roles), roles, uow.now)
    uow.wake()
    found = [(row["subject_ref"], _ONLY_LIVE) for row in gone] + [(row["subject_ref"], _ONLY_REBUILT) for row in come]
    return [_difference(agency_id, subject_ref, why) for subject_ref, why in found]


def _difference(agency_id: str, subject_ref: str, found: str) -> Difference:
    return Difference(f"{agency_id} / {subject_ref}", found)


def _read(record: Record) -> tuple[Envelope | None, Event | None]:
    """A record's envelope and event; None if it cannot be read."""
    try:
        envelope = read_headers(record.headers)
        cls = _KINDS[envelope.type]
        if issubclass(cls, Erasure):
            return envelope, cls(agency_id=envelope.agency_id, subject_ref=(record.key or b"").decode())
        return envelope, cls.model_validate_json(record.value or b"")
    except (MalformedRecord, KeyError, ValidationError, UnicodeDecodeError):
        return None, None

"""The probe's database, as a test reads it, tampers with it, and waits for it."""

import secrets
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from muster_operator.databases.provisioning import Access, clone, drop, password_of
from tests.faults.probe.service import TOPIC
from tests.support.eventually import eventually


class ProbeTables:
    """What a field does with the probe's schema, as a superuser."""

    postgres_dsn: str
    access: Access
    admin: "asyncpg.Connection[Any]"

    async def connect(self) -> "asyncpg.Connection[Any]":
        """A superuser's connection to the probe's schema."""
        return await asyncpg.connect(self.access.admin_dsn, server_settings={"search_path": "probe"})

    async def reconnect(self) -> None:
        """Connect again, after the server was away."""
        self.admin.terminate()
        self.admin = await self.connect()

    async def back_up(self) -> str:
        """Copy the database, and return the copy's name. None of its processes may run."""
        backup = f"backup_{secrets.token_hex(4)}"
        await self._copy(self._database, backup)
        return backup

    async def restore(self, backup: str) -> None:
        """Put a backup in the database's place. None of its processes may run."""
        await self.admin.close()
        await drop(self.postgres_dsn, self._database)
        await self._copy(backup, self._database)

    async def _copy(self, source: str, target: str) -> None:
        await self.admin.close()
        await clone(self.postgres_dsn, source, target, "probe", password_of(self.postgres_dsn))
        self.admin = await self.connect()

    @property
    def _database(self) -> str:
        return urlsplit(self.access.admin_dsn).path.removeprefix("/")

    async def at_rest(self, timeout: float = 60) -> None:
        """Wait until all that was produced is on the topic, and applied."""
        await eventually(self._rests, timeout=timeout)

    async def _rests(self) -> bool:
        """The outbox is empty, and each stream is applied to its end or parked."""
        waiting = await self.admin.fetch(
            """
            select s.agency_id, s.epoch, s.last_sequence, a.epoch, a.last_sequence
            from stream as s
            left join applied as a on a.topic = s.topic and a.agency_id = s.agency_id
            where
                s.topic = $1
                and (a.epoch, a.last_sequence) is distinct from (s.epoch, s.last_sequence)
                and not exists (
                    select from parked_stream as p where p.topic = s.topic and p.agency_id = s.agency_id
                )
            """,
            TOPIC,
        )
        outbox: int = await self.admin.fetchval("select count(*) from outbox")
        assert not outbox, f"{outbox} rows in the outbox"
        assert not waiting, f"not applied: {[tuple(row) for row in waiting]}"
        return True

    async def is_applied(self, agency_id: str) -> bool:
        """Whether all that an agency's stream holds by now is applied."""
        row = await self.admin.fetchrow(
            """
            select s.last_sequence, a.last_sequence
            from stream as s
            left join applied as a using (topic, agency_id)
            where s.topic = $1 and s.agency_id = $2
            """,
            TOPIC,
            agency_id,
        )
        assert row is not None
        produced, applied = row
        assert produced == applied, f"{agency_id}: {applied} of {produced} applied"
        return True

    async def until_drained(self) -> None:
        """Wait until the outbox is empty."""
        await eventually(self._drained, timeout=60)

    async def _drained(self) -> bool:
        return not await self.has_backlog()

    async def has_backlog(self) -> bool:
        """Whether anything waits in the outbox."""
        return bool(await self.admin.fetchval("select exists (select from outbox)"))

    async def effects(self, agency_id: str) -> list[str]:
        """The seats whose effects an agency has, in order."""
        rows = await self.admin.fetch("select seat_id from effect where agency_id = $1 order by id", agency_id)
        return [row["seat_id"] for row in rows]

    async def trouble(self, agency_id: str, seat_id: str, seconds: float | None = None) -> None:
        """Make the consumer's handler spend this many seconds on a seat, or refuse it."""
        await self.admin.execute("insert into trouble values ($1, $2, $3)", agency_id, seat_id, seconds)

    async def no_more_trouble(self) -> None:
        """Make the consumer's handler accept every seat again."""
        await self.admin.execute("delete from trouble")

    async def handler_sleeps(self) -> bool:
        """Whether a handler is at work on a slow seat, in its transaction."""
        return bool(
            await self.admin.fetchval(
                """
                select true
                from pg_stat_activity
                where datname = current_database() and state = 'active' and query like 'select pg_sleep%'
                """
            )
        )

    async def parked(self, agency_id: str) -> str | None:
        """Why an agency's stream is parked, if it is."""
        reason: str | None = await self.admin.fetchval(
            "select reason from parked_stream where agency_id = $1", agency_id
        )
        return reason

    async def has_expired(self, count: int) -> bool:
        """Whether exactly this many deadlines have been handled."""
        expired = await self.admin.fetchval("select count(*) from expiry")
        assert expired == count, f"{expired} expiries"
        return True

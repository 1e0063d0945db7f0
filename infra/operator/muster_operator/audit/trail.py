"""Reads a service's audit trails and their seals from its database, in batches."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from muster_contracts.audit import NO_SEAL, SealedAudit
from muster_operator.databases.reading import reading

Row = Mapping[str, Any]

# Rows or seals per statement: a few megabytes.
BATCH = 2_000

_AGENCIES = """
with recursive known (agency_id) as (
    (select agency_id from audit order by agency_id limit 1)
    union all
    select (select a.agency_id from audit as a where a.agency_id > known.agency_id order by a.agency_id limit 1)
    from known
    where known.agency_id is not null
),
sealed as (
    select agency_id, min(number) as first_number, max(number) as last_number, max(last_id) as last_id
    from audit_seal
    group by agency_id
),
waiting as (
    select agency_id, min(first_sequence) as sequence from outbox where topic = $1 group by agency_id
)
select
    agency_id,
    coalesce(sealed.first_number, 1) as first_number,
    coalesce(sealed.last_number, 0) as last_number,
    coalesce(sealed.last_id, 0) as last_id,
    least(coalesce(waiting.sequence - 1, sealed.last_number, 0), coalesce(sealed.last_number, 0)) as published,
    coalesce(stream.epoch, 1) as epoch,
    unsealed.*
from (select agency_id from known where agency_id is not null union select agency_id from sealed) as agency
left join sealed using (agency_id)
left join waiting using (agency_id)
left join (select agency_id, epoch from stream where topic = $1) as stream using (agency_id)
cross join lateral (
    select
        count(*) as unsealed,
        min(a.id) as unsealed_first,
        max(a.id) as unsealed_last,
        min(a.id) filter (where readable_instant(a.recorded_at) is null) as unsealed_undated,
        extract(epoch from clock_timestamp() - min(readable_instant(a.recorded_at)))::float8 as unsealed_seconds
    from audit as a
    where a.agency_id = agency.agency_id and a.id > coalesce(sealed.last_id, 0)
) as unsealed
where $2::text is null or agency_id = $2
order by agency_id
"""

_SEAL = """
s.agency_id, s.number, s.first_id, s.last_id, s.count, s.sha256, s.previous_sha256,
readable_instant(s.sealed_at) as sealed_at
"""


@dataclass(frozen=True, slots=True)
class Agency:
    """An agency's trail at one instant: its seals, and the unsealed rows after the last one.

    Seals up to the number `published` are on the topic. `epoch` is the epoch of the agency's stream there.
    `unsealed_undated` is the first unsealed row with a date that no program can read.
    """

    agency_id: str
    first_number: int
    last_number: int
    last_id: int
    published: int
    epoch: int
    unsealed: int
    unsealed_first: int | None
    unsealed_last: int | None
    unsealed_undated: int | None
    unsealed_seconds: float | None


class Trail:
    """The audit tables of a service. A date that no program can read is None."""

    def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def open(cls, admin_dsn: str, service: str) -> AsyncIterator["Trail"]:
        """Open a service's tables."""
        async with reading(admin_dsn, service) as connection:
            yield cls(connection)

    async def agencies(self, topic: str, agency_id: str | None = None) -> list[Agency]:
        """Each agency with a trail, or only the given one, all at one instant."""
        return [Agency(**row) for row in await self._connection.fetch(_AGENCIES, topic, agency_id)]

    async def now(self) -> datetime:
        """The server's time."""
        instant: datetime = await self._connection.fetchval("select clock_timestamp()")
        return instant

    async def seals_of(self, events: Iterable[SealedAudit]) -> list[Row]:
        """For each event, the stored seal with its agency and number, or nulls.

        Each row also has the agency's current lowest and highest seal number, `lowest` and `highest`.
        """
        events = list(events)
        rows: list[Row] = await self._connection.fetch(
            f"""
            select
                {_SEAL},
                (select min(number) from audit_seal where agency_id = k.agency_id) as lowest,
                (select max(number) from audit_seal where agency_id = k.agency_id) as highest
            from unnest($1::text[], $2::bigint[]) with ordinality as k (agency_id, number, place)
            left join audit_seal as s on s.agency_id = k.agency_id and s.number = k.number
            order by k.place
            """,  # noqa: S608
            [event.agency_id for event in events],
            [event.number for event in events],
        )
        return rows

    async def seals(self, agency_id: str, first: int, last: int) -> AsyncIterator[Row]:
        """An agency's seals with these numbers, in order."""
        while batch := await self._connection.fetch(
            f"""
            select {_SEAL}
            from audit_seal as s
            where s.agency_id = $1 and s.number between $2 and $3
            order by s.number
            limit $4
            """,  # noqa: S608
            agency_id,
            first,
            last,
            BATCH,
        ):
            for seal in batch:
                yield seal
            first = batch[-1]["number"] + 1

    async def rows(self, agency_id: str, after: int, last: int) -> AsyncIterator[Row]:
        """An agency's rows with IDs above `after` and up to `last`, in order."""
        while batch := await self._connection.fetch(
            """
            select
                id, readable_instant(recorded_at) as recorded_at, agency_id, actor, command, subject, reason, before,
                after, request_id, correlation_id
            from audit
            where agency_id = $1 and id > $2 and id <= $3
            order by id
            limit $4
            """,
            agency_id,
            after,
            last,
            BATCH,
        ):
            for row in batch:
                yield row
            after = batch[-1]["id"]

    async def last_recorded_at(self, agency_id: str, until: int) -> datetime | None:
        """When an agency's last row with an ID of at most `until` was recorded."""
        instant: datetime | None = await self._connection.fetchval(
            """
            select readable_instant(recorded_at)
            from audit
            where agency_id = $1 and id <= $2
            order by id desc
            limit 1
            """,
            agency_id,
            until,
        )
        return instant

    async def first_since(self, agency_id: str, since: datetime) -> int | None:
        """The number of an agency's first seal made at or after an instant."""
        number: int | None = await self._connection.fetchval(
            "select min(number) from audit_seal where agency_id = $1 and sealed_at >= $2", agency_id, since
        )
        return number

    async def end_of(self, agency_id: str, number: int) -> tuple[int, str]:
        """A seal's last row ID and hash; 0 and NO_SEAL if there is no such seal."""
        row = await self._connection.fetchrow(
            "select last_id, sha256 from audit_seal where agency_id = $1 and number = $2", agency_id, number
        )
        return (row["last_id"], row["sha256"]) if row else (0, NO_SEAL)

    async def covering(self, agency_id: str, start: datetime, end: datetime) -> tuple[int, int] | None:
        """The first and last seal that cover a row recorded from `start` until before `end`."""
        row = await self._connection.fetchrow(
            """
            with period as (
                select min(id) as first_id, max(id) as last_id
                from audit
                where agency_id = $1 and recorded_at >= $2 and recorded_at < $3
            )
            select min(s.number) as first, max(s.number) as last
            from audit_seal as s, period
            where s.agency_id = $1 and s.last_id >= period.first_id and s.first_id <= period.last_id
            """,
            agency_id,
            start,
            end,
        )
        return None if row is None or row["first"] is None else (row["first"], row["last"])

    async def unsealed_between(self, agency_id: str, start: datetime, end: datetime) -> int:
        """The number of a period's rows after the last seal."""
        count: int = await self._connection.fetchval(
            """
            select count(*)
            from audit
            where
                agency_id = $1 and recorded_at >= $2 and recorded_at < $3
                and id > (select coalesce(max(last_id), 0) from audit_seal where agency_id = $1)
            """,
            agency_id,
            start,
            end,
        )
        return count

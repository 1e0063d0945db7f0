"""Deadlines: rows that say what must happen later, and when."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from muster_runtime.database.transactions import Connection, UnitOfWork
from muster_runtime.messaging import breaker
from muster_runtime.messaging.parking import printable


@dataclass(frozen=True, slots=True)
class Deadline:
    """At `due_at`, the handler of `kind` is called for `subject`, an ID that the service defines."""

    kind: str
    agency_id: str
    subject: str
    due_at: datetime


# The last change to a deadline in a transaction wins: a new instant, or none.
_SET = """
scheduled as (
    merge into deadline as d
    using unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) as n(kind, agency_id, subject, due_at)
    on d.kind = n.kind and d.agency_id = n.agency_id and d.subject = n.subject
    when matched and n.due_at is null then delete
    when matched then update set due_at = n.due_at, parked_at = null, reason = null
    when not matched and n.due_at is not null then
        insert (kind, agency_id, subject, due_at) values (n.kind, n.agency_id, n.subject, n.due_at)
)
"""

_SET_EARLIER = """
scheduled_earlier as (
    merge into deadline as d
    using (
        select kind, agency_id, subject, min(due_at) as due_at
        from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) as e(kind, agency_id, subject, due_at)
        group by kind, agency_id, subject
    ) as n
    on d.kind = n.kind and d.agency_id = n.agency_id and d.subject = n.subject
    when matched and n.due_at < d.due_at then update set due_at = n.due_at, parked_at = null, reason = null
    when not matched then
        insert (kind, agency_id, subject, due_at) values (n.kind, n.agency_id, n.subject, n.due_at)
)
"""

# Handles an agency's due deadlines of one kind, in the order of their instants. Their rows are already deleted: a
# handler that wants to run again schedules a new deadline. `uow.now` is never before a due instant; publish with
# time=due_at.
DeadlineHandler = Callable[[UnitOfWork, Sequence[Deadline]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ParkedDeadline:
    """A deadline that could not be handled, when it was parked, and why."""

    kind: str
    agency_id: str
    subject: str
    due_at: datetime
    parked_at: datetime
    reason: str


class Due(NamedTuple):
    """Whether deadlines are due that wait for the scheduler, and whether any are parked."""

    waiting: bool
    parked: bool


def schedule(uow: UnitOfWork, deadlines: Sequence[Deadline]) -> None:
    """Schedule deadlines. An existing one of the same kind, agency, and subject is moved, and is no longer parked."""
    for deadline in deadlines:
        _set(uow, deadline.kind, deadline.agency_id, deadline.subject, deadline.due_at)
    if deadlines:
        uow.wake()


def schedule_earlier(uow: UnitOfWork, deadline: Deadline) -> None:
    """Schedule a deadline, unless one of the same kind, agency, and subject is due earlier."""
    row = (deadline.kind, deadline.agency_id, deadline.subject, deadline.due_at)
    uow.writes.add_row(_SET_EARLIER, *row, key=row)
    uow.wake()


def cancel(uow: UnitOfWork, agency_id: str, kind: str, subjects: Sequence[str]) -> None:
    """Remove deadlines. It is not an error if one does not exist."""
    for subject in subjects:
        _set(uow, kind, agency_id, subject, None)


def _set(uow: UnitOfWork, kind: str, agency_id: str, subject: str, due_at: datetime | None) -> None:
    uow.writes.add_row(_SET, kind, agency_id, subject, due_at, key=(kind, agency_id, subject))


async def next_due(connection: Connection) -> datetime | None:
    """The earliest instant at which a deadline of this service is due, not counting parked ones."""
    instant: datetime | None = await connection.fetchval("select min(due_at) from deadline where parked_at is null")
    return instant


async def due_agencies(
    connection: Connection,
    now: datetime,
    *,
    late_before: datetime,
    without: Sequence[str],
    kinds: Sequence[str] = (),
    of_kinds: Sequence[str] = (),
) -> dict[str, datetime]:
    """The first 100 agencies with a due deadline, except `without`: each with its earliest instant, in that order.

    Those that were due before `late_before` come last: however many of them wait, they delay no other. Deadlines of
    `kinds` count only for the agencies `of_kinds`.

    It reads one row of each agency in the order of the index deadline_by_agency, however many are due.
    """
    rows = await connection.fetch(
        """
        with recursive first (agency_id, due_at) as (
            (
                select d.agency_id, d.due_at
                from deadline as d
                where
                    d.parked_at is null and (d.kind <> all($4::text[]) or d.agency_id = any($5::text[]))
                    and (select min(due_at) from deadline where parked_at is null) <= $1
                order by d.agency_id, d.due_at
                limit 1
            )
            union all
            select following.agency_id, following.due_at
            from first
            cross join lateral (
                select d.agency_id, d.due_at
                from deadline as d
                where
                    d.agency_id > first.agency_id and d.parked_at is null
                    and (d.kind <> all($4::text[]) or d.agency_id = any($5::text[]))
                order by d.agency_id, d.due_at
                limit 1
            ) as following
        )
        select agency_id, due_at
        from first
        where due_at <= $1 and agency_id <> all($2::text[])
        order by due_at < $3, due_at, agency_id
        limit 100
        """,
        now,
        without,
        late_before,
        kinds,
        of_kinds,
    )
    return {row["agency_id"]: row["due_at"] for row in rows}


async def due_of_kinds(
    connection: Connection, kinds: Sequence[str], now: datetime
) -> dict[str, tuple[datetime, datetime]]:
    """The agencies with due deadlines of these kinds: each with its earliest and its latest instant."""
    rows = await connection.fetch(
        """
        select agency_id, min(due_at) as first, max(due_at) as last
        from deadline
        where due_at <= $1 and kind = any($2::text[]) and parked_at is null
        group by agency_id
        """,
        now,
        kinds,
    )
    return {row["agency_id"]: (row["first"], row["last"]) for row in rows}


async def due_first(
    connection: Connection, agency_id: str, now: datetime, *, without_kinds: Sequence[str] = ()
) -> list[Deadline]:
    """All deadlines of an agency that are due at its earliest instant, except those of some kinds."""
    rows = await connection.fetch(
        """
        select kind, agency_id, subject, due_at
        from deadline
        where
            agency_id = $1 and parked_at is null and kind <> all($3::text[])
            and due_at = (
                select due_at
                from deadline
                where
                    agency_id >= $1 and (agency_id, due_at) <= ($1, $2) -- so that deadline_by_agency gives one row
                    and parked_at is null and kind <> all($3::text[])
                order by agency_id, due_at
                limit 1
            )
        """,
        agency_id,
        now,
        without_kinds,
    )
    return [Deadline(**row) for row in rows]


async def find_due(connection: Connection, agency_id: str, kinds: Sequence[str], at: datetime) -> Due:
    """Which deadlines of these kinds an agency has that are due by an instant and not handled."""
    (row,) = await connection.fetch(
        """
        select
            coalesce(bool_or(parked_at is null), false) as waiting,
            coalesce(bool_or(parked_at is not null), false) as parked
        from deadline
        where agency_id = $1 and kind = any($2::text[]) and due_at <= $3
        """,
        agency_id,
        kinds,
        at,
    )
    return Due(**row)


async def find_next_due(connection: Connection, agency_id: str, kinds: Sequence[str]) -> datetime | None:
    """The earliest instant at which a deadline of these kinds in an agency is due, not counting parked ones."""
    instant: datetime | None = await connection.fetchval(
        "select min(due_at) from deadline where agency_id = $1 and kind = any($2::text[]) and parked_at is null",
        agency_id,
        kinds,
    )
    return instant


async def find_instant(connection: Connection, kind: str, agency_id: str, subject: str) -> datetime | None:
    """When a deadline is due, even if it is parked; None if it does not exist."""
    instant: datetime | None = await connection.fetchval(
        "select due_at from deadline where kind = $1 and agency_id = $2 and subject = $3", kind, agency_id, subject
    )
    return instant


async def take(uow: UnitOfWork, deadlines: Sequence[Deadline]) -> list[Deadline]:
    """Remove deadlines in order to handle them. Returns those that still existed; none while the facts are in doubt.

    One that was found before the clock was set back, and is not due anymore, stays.
    """
    rows = await uow.connection.fetch(
        """
        delete from deadline
        where
            (kind, agency_id, subject, due_at) in (
                select * from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
            )
            and due_at <= $5
            and not (select facts_in_doubt())
        returning kind, agency_id, subject, due_at
        """,
        [d.kind for d in deadlines],
        [d.agency_id for d in deadlines],
        [d.subject for d in deadlines],
        [d.due_at for d in deadlines],
        uow.now,
    )
    return [Deadline(**row) for row in rows]


async def park(uow: UnitOfWork, deadline: Deadline, reason: str, limit: int) -> None:
    """Park a deadline until an operator acts. Raises BreakerOpen if `limit` were parked within the breaker's window."""
    await breaker.check_deadlines(uow, limit)
    await note_reason(uow, deadline, reason)


async def note_reason(uow: UnitOfWork, deadline: Deadline, reason: str) -> None:
    """Store why a deadline is parked."""
    await uow.connection.execute(
        """
        update deadline
        set parked_at = coalesce(parked_at, $5), reason = $6
        where kind = $1 and agency_id = $2 and subject = $3 and due_at = $4
        """,
        deadline.kind,
        deadline.agency_id,
        deadline.subject,
        deadline.due_at,
        uow.now,
        printable(reason),
    )


async def parked_deadlines(connection: Connection) -> list[ParkedDeadline]:
    """All parked deadlines of the service."""
    rows = await connection.fetch(
        """
        select kind, agency_id, subject, due_at, parked_at, reason
        from deadline
        where parked_at is not null
        order by agency_id, kind, subject
        """
    )
    return [ParkedDeadline(**row) for row in rows]

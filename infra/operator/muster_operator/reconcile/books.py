"""Reads the contents of each service's tables at one instant."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from muster_operator.reconcile.lost_changes import SeatKey
from muster_operator.reconcile.streams import End, Stream, Streams, read_streams, within

TermKey = tuple[str, str]  # agency, term
Someone = tuple[str, str]  # agency, reference
InvoiceKey = tuple[str, str]  # agency, invoice


@dataclass(frozen=True)
class Enrollment:
    """The latest enrollment of an agency; `closed` once it is withdrawn or ended."""

    id: str
    state: str

    @property
    def open(self) -> bool:
        """Whether it is active or suspended."""
        return self.state in ("active", "suspended")


@dataclass(frozen=True)
class Term:
    """A scheduled or running term in billing."""

    id: str
    agency_id: str
    enrollment_id: str


@dataclass(frozen=True)
class Outlook:
    """A service's view of a started term: its end after a renewal, and whether it ended without one."""

    enrollment_id: str
    renewed_to: datetime | None
    ended: bool  # completed and not renewed


@dataclass(frozen=True)
class Pool:
    """An agency's seat pool, and the number of seats actually held."""

    enrollment_id: str
    suspended: bool
    withdrawn: bool
    ended: bool
    in_use: int
    held: int

    @property
    def standing(self) -> str:
        """The agency's standing in entitlements, in the terms of an enrollment's state."""
        if self.withdrawn:
            return "withdrawn"
        if self.ended:
            return "ended"
        return "suspended" if self.suspended else "active"


@dataclass(frozen=True)
class Trial:
    """An open trial window, and whether its end is scheduled."""

    window_id: str
    agency_id: str
    feature: str
    scheduled: bool


@dataclass(frozen=True)
class Books:
    """Everything that a reconciliation compares."""

    streams: Mapping[str, Streams]  # by service
    enrollments: Mapping[str, Enrollment]  # by agency
    contacts: frozenset[Someone]
    holders: frozenset[Someone]  # of seats
    terms: Sequence[Term]
    unpaid: Mapping[InvoiceKey, str]  # the states of billing's invoices that are not paid
    decided: Mapping[TermKey, Outlook]  # billing's
    understood: Mapping[TermKey, Outlook]  # entitlements'
    pools: Mapping[str, Pool]  # by agency
    trials: Sequence[Trial]
    directory: frozenset[Someone]  # contacts that notify knows
    people: frozenset[Someone]  # seat holders that notify knows


@dataclass(frozen=True)
class TopicEnds:
    """The topics' contents: each stream's end, the people on the directory topics who are not erased, and payments.

    `lost` are the changes of seats that entitlements does not have: the seat, and what was changed.
    """

    streams: Mapping[Stream, End]
    people: frozenset[Someone]  # seat holders, and agencies' contacts
    paid: frozenset[InvoiceKey]
    lost: frozenset[tuple[SeatKey, str]] = frozenset()


async def read_books(admin_dsn: str, ends: Mapping[Stream, End]) -> Books:
    """Read every service's schema, each in its own snapshot. `ends` are the topics'."""
    async with asyncio.TaskGroup() as group:
        streams = group.create_task(read_streams(admin_dsn, ends))
        enrollments = group.create_task(within(admin_dsn, "enrollment", _enrollments))
        contacts = group.create_task(within(admin_dsn, "enrollment", _contacts))
        holders = group.create_task(within(admin_dsn, "entitlements", read_holders))
        terms = group.create_task(within(admin_dsn, "billing", _terms))
        unpaid = group.create_task(within(admin_dsn, "billing", _unpaid))
        decided = group.create_task(within(admin_dsn, "billing", _decided))
        understood = group.create_task(within(admin_dsn, "entitlements", _understood))
        pools = group.create_task(within(admin_dsn, "entitlements", _pools))
        trials = group.create_task(within(admin_dsn, "entitlements", read_trials))
        directory = group.create_task(within(admin_dsn, "notify", _directory))
        people = group.create_task(within(admin_dsn, "notify", _people))
    return Books(
        streams.result(),
        enrollments.result(),
        contacts.result(),
        holders.result(),
        terms.result(),
        unpaid.result(),
        decided.result(),
        understood.result(),
        pools.result(),
        trials.result(),
        directory.result(),
        people.result(),
    )


async def _enrollments(connection: "asyncpg.Connection[Any]") -> dict[str, Enrollment]:
    rows = await connection.fetch(
        """
        select distinct on (agency_id) agency_id, enrollment_id, state
        from enrollment
        order by agency_id, number desc
        """
    )
    return {row["agency_id"]: Enrollment(row["enrollment_id"], row["state"]) for row in rows}


async def _contacts(connection: "asyncpg.Connection[Any]") -> frozenset[Someone]:
    rows = await connection.fetch("select agency_id, contact_ref from contact where erased_at is null")
    return frozenset((row["agency_id"], row["contact_ref"]) for row in rows)


async def read_holders(connection: "asyncpg.Connection[Any]") -> frozenset[Someone]:
    """The people who hold a seat. Their names and addresses are deleted with the seat."""
    rows = await connection.fetch("select agency_id, subject_ref from seat where state <> 'revoked'")
    return frozenset((row["agency_id"], row["subject_ref"]) for row in rows)


async def _terms(connection: "asyncpg.Connection[Any]") -> list[Term]:
    rows = await connection.fetch(
        """
        select id, agency_id, enrollment_id
        from term
        where state in ('scheduled', 'running')
        order by agency_id, number
        """
    )
    return [Term(**row) for row in rows]


async def _unpaid(connection: "asyncpg.Connection[Any]") -> dict[InvoiceKey, str]:
    rows = await connection.fetch("select agency_id, id, state from invoice where state <> 'paid'")
    return {(row["agency_id"], row["id"]): row["state"] for row in rows}


async def _decided(connection: "asyncpg.Connection[Any]") -> dict[TermKey, Outlook]:
    """The terms that billing has announced. Enrollment announces those that a withdrawal cuts short."""
    rows = await connection.fetch(
        """
        select
            t.agency_id, t.id as term_id, t.enrollment_id, r.next_ends_at as renewed_to,
            t.state = 'ended' and r.id is null as ended
        from term as t
        left join renewal as r on r.term_id = t.id and r.state = 'accepted'
        where t.state = 'running' or (t.state = 'ended' and t.end_reason = 'completed')
        """
    )
    return _outlooks(rows)


async def _understood(connection: "asyncpg.Connection[Any]") -> dict[TermKey, Outlook]:
    return _outlooks(await connection.fetch("select agency_id, term_id, enrollment_id, renewed_to, ended from term"))


def _outlooks(rows: Sequence[Any]) -> dict[TermKey, Outlook]:
    return {
        (row["agency_id"], row["term_id"]): Outlook(row["enrollment_id"], row["renewed_to"], row["ended"])
        for row in rows
    }


async def _pools(connection: "asyncpg.Connection[Any]") -> dict[str, Pool]:
    rows = await connection.fetch(
        """
        select
            agency_id, enrollment_id, suspended, withdrawn_at is not null as withdrawn, ended, in_use,
            (
                select count(*)
                from seat
                where seat.agency_id = pool.agency_id and seat.state <> 'revoked'
            ) - revoking as held
        from pool
        """
    )
    return {
        row["agency_id"]: Pool(**{name: value for name, value in row.items() if name != "agency_id"}) for row in rows
    }


async def read_trials(connection: "asyncpg.Connection[Any]") -> list[Trial]:
    """The windows that an expiry must still close: a trial's end is a deadline until it is handled.

    It is handled by the agency's first transaction at or after that instant.
    """
    rows = await connection.fetch(
        """
        select
            w.window_id, w.agency_id, w.feature, d.subject is not null as scheduled
        from feature_window as w
        join pool as p on p.agency_id = w.agency_id and p.enrollment_id = w.enrollment_id
        left join deadline as d
            on d.agency_id = w.agency_id and d.kind = 'trial-expired' and d.subject = w.window_id
        left join agency_instant as i on i.agency_id = w.agency_id
        where
            w.trial and w.starts_at < w.ends_at and p.withdrawn_at is null and not p.ended
            and w.ends_at > coalesce(i.latest, '-infinity')
        order by w.agency_id, w.feature
        """
    )
    return [Trial(**row) for row in rows]


async def _directory(connection: "asyncpg.Connection[Any]") -> frozenset[Someone]:
    rows = await connection.fetch("select agency_id, subject_ref from directory where role <> 'person'")
    return frozenset((row["agency_id"], row["subject_ref"]) for row in rows)


async def _people(connection: "asyncpg.Connection[Any]") -> frozenset[Someone]:
    rows = await connection.fetch("select agency_id, subject_ref from directory where role = 'person'")
    return frozenset((row["agency_id"], row["subject_ref"]) for row in rows)

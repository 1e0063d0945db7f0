"""The read side of seats: who holds one, who held it before, and how many there are."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from muster_entitlements.domain.as_of import AsOf
from muster_entitlements.domain.seats import SeatState
from muster_entitlements.errors import SeatUnknown
from muster_entitlements.replies import SeatReply
from muster_entitlements.replies.seats import SeatCountsReply, SeatVersionReply
from muster_entitlements.repository import history
from muster_runtime.database.transactions import Connection
from muster_runtime.identifiers import id_after
from muster_runtime.pagination import InvalidCursor, Page, Pagination

# A seat of an earlier generation reads as revoked: its row waits to be revoked.
_SEAT = """
    select
        s.seat_id, s.subject_ref, s.assigned_at, s.activated_at, s.revoked_at, s.reason, s.unit,
        s.idle_since as unused_since,
        case when s.generation = p.generation then s.state else 'revoked' end as state,
        case when s.generation = p.generation then s.invited_until end as invited_until,
        case when s.generation = p.generation then s.email end as email,
        case when s.generation = p.generation then s.name end as name
    from seat as s
    join pool as p using (agency_id)
"""

# The past versions of seats, as far as they are kept, and the current ones with their start. A seat keeps its unit.
_VERSIONS = """
    with version as (
        select seat_id, subject_ref, state, reason, recorded_from, recorded_until
        from seat_history
        where agency_id = $1 and {past}
        union all
        select
            s.seat_id, s.subject_ref,
            case when s.generation = p.generation then s.state else 'revoked' end,
            s.reason, coalesce(s.recorded_from, s.assigned_at), null
        from seat as s
        join pool as p using (agency_id)
        where s.agency_id = $1 and {present}
    )

    select v.seat_id, v.subject_ref, v.state, v.reason, s.unit, v.recorded_from, v.recorded_until
    from version as v
    join seat as s on s.agency_id = $1 and s.seat_id = v.seat_id
    where $3::timestamptz is null or (v.recorded_from, v.seat_id) > ($3, $4)
    order by v.recorded_from, v.seat_id
    limit $5
"""
_OF_SEAT = _VERSIONS.format(past="seat_id = $2", present="s.seat_id = $2")
# Each half has an index of its own.
_OF_PERSON = _VERSIONS.format(
    past="subject_ref = $2",
    present="((s.subject_ref = $2 and s.state <> 'revoked') or (s.subject_ref = $2 and s.state = 'revoked'))",
)


@dataclass(frozen=True, slots=True)
class SeatSearch:
    """A search for seats that meet every condition that is not None."""

    address_ref: str | None = None
    """The reference of the person who has an address."""
    subject_ref: str | None = None
    state: SeatState | None = None
    unused_since: date | None = None
    """Held seats that nobody has used on that day or later."""
    unit_key: str | None = None

    def conditions(self, first: int) -> Iterator[tuple[str, Any]]:
        """The conditions, each with its parameter, numbered from `first`.

        Conditions that are None are left out: otherwise, one plan would have to serve every search.
        """
        for subject_ref in (self.address_ref, self.subject_ref):
            if subject_ref is not None:
                own = f"s.subject_ref = ${first}"
                yield f"(({own} and s.state <> 'revoked') or ({own} and s.state = 'revoked'))", subject_ref
                first += 1
        if self.state is SeatState.REVOKED:
            yield f"(s.state = ${first} or s.generation <> p.generation)", self.state
            first += 1
        elif self.state is not None:
            yield f"s.state = ${first} and s.generation = p.generation", self.state
            first += 1
        if self.unit_key is not None:
            yield f"s.unit_key = ${first}", self.unit_key
            first += 1
        if self.unused_since is not None:
            held = "s.state <> 'revoked' and s.generation = p.generation"
            yield f"s.idle_since < ${first} and {held}", self.unused_since


async def list_seats(connection: Connection, agency_id: str, search: SeatSearch, page: Pagination) -> Page[SeatReply]:
    """Seats of an agency, held and revoked, oldest first."""
    conditions = list(search.conditions(first=4))
    rows = await connection.fetch(
        f"""
        {_SEAT}
        where {" and ".join(["agency_id = $1 and seat_id > $2", *(text for text, _ in conditions)])}
        order by seat_id
        limit $3
        """,
        agency_id,
        page.after or "",
        page.rows,
        *(value for _, value in conditions),
    )
    return page.make([SeatReply(**row) for row in rows], key=lambda seat: seat.seat_id)


async def find_seat(connection: Connection, agency_id: str, seat_id: str) -> SeatReply:
    """A seat with its holder. Raises SeatUnknown."""
    row = await connection.fetchrow(f"{_SEAT} where agency_id = $1 and seat_id = $2", agency_id, seat_id)
    if row is None:
        raise SeatUnknown(agency_id, seat_id)
    return SeatReply(**row)


async def list_past_seats(connection: Connection, agency_id: str, as_of: AsOf, page: Pagination) -> Page[SeatReply]:
    """Seats of an agency as they were, oldest first."""
    pool = await history.find_pool(connection, agency_id, as_of)
    if pool is None:
        return Page(items=[], next=None)
    later = id_after("seat", as_of.at)
    rows = await history.list_seats(connection, pool, as_of, page.after or "", later, page.rows)
    return page.make([SeatReply(**row) for row in rows], key=lambda seat: seat.seat_id)


async def find_past_seat(connection: Connection, agency_id: str, seat_id: str, as_of: AsOf) -> SeatReply:
    """A seat as it was. Raises SeatUnknown."""
    pool = await history.find_pool(connection, agency_id, as_of)
    row = None if pool is None else await history.find_seat_by_id(connection, pool, seat_id, as_of)
    if row is None:
        raise SeatUnknown(agency_id, seat_id)
    return SeatReply(**row)


async def count_seats(connection: Connection, agency_id: str) -> SeatCountsReply:
    """The number of an agency's seats in each state."""
    rows = await connection.fetch(
        """
        select case when s.generation = p.generation then s.state else 'revoked' end as state, count(*) as seats
        from seat as s
        join pool as p using (agency_id)
        where s.agency_id = $1
        group by 1
        """,
        agency_id,
    )
    return SeatCountsReply(**dict.fromkeys(SeatState, 0) | {row["state"]: row["seats"] for row in rows})


async def count_past_seats(connection: Connection, agency_id: str, as_of: AsOf) -> SeatCountsReply:
    """The number of seats that an agency had in each state."""
    pool = await history.find_pool(connection, agency_id, as_of)
    counts = {} if pool is None else await history.count_seats(connection, pool, as_of)
    return SeatCountsReply(**dict.fromkeys(SeatState, 0) | counts)


async def list_seat_versions(
    connection: Connection, agency_id: str, seat_id: str, page: Pagination
) -> Page[SeatVersionReply]:
    """The versions of a seat, oldest first. Raises SeatUnknown."""
    found = await _list_versions(connection, _OF_SEAT, agency_id, seat_id, page)
    if not found.items and page.after is None:
        raise SeatUnknown(agency_id, seat_id)
    return found


async def list_person_versions(
    connection: Connection, agency_id: str, subject_ref: str, page: Pagination
) -> Page[SeatVersionReply]:
    """The versions of a person's seats, oldest first."""
    return await _list_versions(connection, _OF_PERSON, agency_id, subject_ref, page)


async def _list_versions(
    connection: Connection, statement: str, agency_id: str, whose: str, page: Pagination
) -> Page[SeatVersionReply]:
    since, seat_id = _after(page)
    rows = await connection.fetch(statement, agency_id, whose, since, seat_id, page.rows)
    versions = [SeatVersionReply(**row) for row in rows]
    return page.make(versions, key=lambda version: f"{version.recorded_from.isoformat()} {version.seat_id}")


def _after(page: Pagination) -> tuple[datetime | None, str]:
    """The start and the seat of the last version before a page. Raises InvalidCursor."""
    if page.after is None:
        return None, ""
    start, _, seat_id = page.after.partition(" ")
    try:
        return datetime.fromisoformat(start).astimezone(UTC), seat_id
    except (ValueError, OverflowError):
        raise InvalidCursor("after: the cursor belongs to another list") from None

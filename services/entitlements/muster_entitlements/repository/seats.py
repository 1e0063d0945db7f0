"""Seats and their holders. Nobody holds a seat of an earlier generation than the pool's: it waits to be revoked."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, cast

from muster_contracts.entitlements import SeatRevocationReason
from muster_entitlements.domain.people import Person
from muster_entitlements.domain.seats import Seat, SeatState
from muster_entitlements.domain.units import unit_key
from muster_runtime.database.transactions import Connection
from muster_runtime.database.writes import Write

_HELD = """
    from seat
    where
        agency_id = $1 and subject_ref = any(string_to_array($2, E'\n')) and state <> 'revoked'
        and generation = (select generation from pool where agency_id = $1)
"""


@dataclass(frozen=True, slots=True)
class SeatColumns:
    """New seats as columns of equal length, without line breaks; a missing name or unit is empty.

    `began` has the starts of earlier trials, by subject. `units` may be empty if no seat has one.
    """

    seat_ids: Sequence[str]
    subject_refs: Sequence[str]
    emails: Sequence[str]
    names: Sequence[str]
    began: Mapping[str, datetime] = field(default_factory=dict)
    units: Sequence[str] = ()


async def find_held(connection: Connection, agency_id: str, subject_refs: Sequence[str]) -> dict[str, Seat]:
    """The seats that people hold or that are kept for them, by subject."""
    rows = await connection.fetch(
        """
        select agency_id, seat_id, subject_ref, state, activated_at is not null as used
        from seat
        where
            agency_id = $1 and subject_ref = any($2::text[]) and state <> 'revoked'
            and generation = (select generation from pool where agency_id = $1)
        """,
        agency_id,
        subject_refs,
    )
    return {row["subject_ref"]: _to_seat(row) for row in rows}


async def find_states(connection: Connection, agency_id: str, subject_refs: Iterable[str]) -> dict[str, SeatState]:
    """The states of the seats that people hold or that are kept for them; cheaper than `find_held`."""
    rows = await connection.fetch(f"select subject_ref, state {_HELD}", agency_id, "\n".join(subject_refs))
    return {subject_ref: SeatState(state) for subject_ref, state in rows}


async def find_holders(connection: Connection, agency_id: str, subject_refs: Sequence[str]) -> set[str]:
    """Which of these people hold a seat or have one kept for them; cheaper than `find_held`."""
    rows = await connection.fetch(f"select subject_ref {_HELD}", agency_id, "\n".join(subject_refs))
    return {row["subject_ref"] for row in rows}


async def find_unrevoked(connection: Connection, agency_id: str, subject_ref: str) -> str | None:
    """A person's seat of any generation that is not revoked."""
    query = "select seat_id from seat where agency_id = $1 and subject_ref = $2 and state <> 'revoked' limit 1"
    return cast("str | None", await connection.fetchval(query, agency_id, subject_ref))


async def find_seat_ids(connection: Connection, people: Collection[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The seats that people of agencies hold or that are kept for them, by agency and subject."""
    rows = await connection.fetch(
        """
        select s.agency_id, s.subject_ref, s.seat_id
        from unnest($1::text[], $2::text[]) as u (agency_id, subject_ref)
        join pool as p on p.agency_id = u.agency_id
        join seat as s
            on s.agency_id = u.agency_id and s.subject_ref = u.subject_ref and s.generation = p.generation
        where s.state <> 'revoked'
        """,
        [agency_id for agency_id, _ in people],
        [subject_ref for _, subject_ref in people],
    )
    return {(agency_id, subject_ref): seat_id for agency_id, subject_ref, seat_id in rows}


async def find_seat(connection: Connection, agency_id: str, seat_id: str) -> Seat | None:
    """A seat by its ID."""
    row = await connection.fetchrow(
        """
        select
            agency_id, seat_id, subject_ref, activated_at is not null as used,
            case when generation = (select generation from pool where agency_id = $1) then state else 'revoked' end
                as state
        from seat
        where agency_id = $1 and seat_id = $2
        """,
        agency_id,
        seat_id,
    )
    return _to_seat(row) if row else None


def add_seats(
    agency_id: str,
    seats: SeatColumns,
    state: SeatState,
    now: datetime,
    *,
    generation: int,
    invited_until: datetime | None = None,
) -> Write:
    """Add many seats that are assigned to people, or kept for them.

    The columns are sent as strings that Postgres splits: the driver takes a microsecond per row to encode arrays.
    """
    return (
        """
        added_seats as (
            insert into seat (
                agency_id, seat_id, subject_ref, state, assigned_at, idle_since, email, name, generation,
                invited_until, trial_began_at, unit, unit_key
            )
            select $1, seat_id, subject_ref, $2, $3, $4, email, name, $9, $10, began_at::timestamptz, unit, unit_key
            from unnest(
                string_to_array($5, E'\n'), string_to_array($6, E'\n'), string_to_array($7, E'\n'),
                string_to_array($8, E'\n', ''), string_to_array($11, E'\n', ''),
                string_to_array($12, E'\n', ''), string_to_array($13, E'\n', '')
            ) as s (seat_id, subject_ref, email, name, began_at, unit, unit_key)
        )
        """,
        [
            agency_id,
            state,
            now,
            now.date(),
            "\n".join(seats.seat_ids),
            "\n".join(seats.subject_refs),
            "\n".join(seats.emails),
            "\n".join(seats.names),
            generation,
            invited_until,
            "\n".join(str(seats.began.get(ref, "")) for ref in seats.subject_refs) if seats.began else None,
            "\n".join(seats.units) or None,
            "\n".join(map(unit_key, seats.units)) or None,
        ],
    )


async def save_invited(connection: Connection, seat: Seat, until: datetime) -> None:
    """Set a seat to invited."""
    await connection.execute(
        "update seat set state = 'invited', invited_until = $3 where agency_id = $1 and seat_id = $2",
        seat.agency_id,
        seat.seat_id,
        until,
    )


async def save_expired_invitations(
    connection: Connection, agency_id: str, seat_ids: Sequence[str], at: datetime
) -> list[Seat]:
    """Set those of these seats whose invitation ends at an instant back to reserved; returns them."""
    rows = await connection.fetch(
        """
        update seat set state = 'reserved', invited_until = null
        where
            agency_id = $1 and seat_id = any($2::text[]) and state = 'invited' and invited_until = $3
            and generation = (select generation from pool where agency_id = $1)
        returning agency_id, seat_id, subject_ref, state, activated_at is not null as used
        """,
        agency_id,
        seat_ids,
        at,
    )
    return _in_order(rows)


async def save_suspended(connection: Connection, agency_id: str, seat_ids: Sequence[str], reason: str) -> None:
    """Set seats to suspended, for a public reason."""
    await connection.execute(
        """
        update seat set state = 'suspended', reason = $3, idle_reclaim_at = null
        where agency_id = $1 and seat_id = any($2::text[])
        """,
        agency_id,
        seat_ids,
        reason,
    )


async def save_reinstated(connection: Connection, seat: Seat, state: SeatState, today: date) -> None:
    """Set a suspended seat to its next state; its idle days restart."""
    await connection.execute(
        "update seat set state = $3, reason = null, idle_since = $4 where agency_id = $1 and seat_id = $2",
        seat.agency_id,
        seat.seat_id,
        state,
        today,
    )


async def save_transferred(
    connection: Connection,
    agency_id: str,
    transfers: Sequence[tuple[str, Person]],
    now: datetime,
    began: Mapping[str, datetime],
) -> None:
    """Transfer seats to other people, one by one: a person may lose one seat and get another.

    A seat keeps its trial, unless that of its new person `began` earlier.
    """
    await connection.executemany(
        """
        update seat
        set
            subject_ref = $3, email = $4, name = $5, state = 'assigned', assigned_at = $6,
            trial_began_at = least(coalesce(trial_began_at, activated_at), $8), activated_at = null,
            idle_since = $7, idle_reclaim_at = null
        where agency_id = $1 and seat_id = $2
        """,
        [
            (agency_id, seat_id, to.subject_ref, to.email, to.name, now, now.date(), began.get(to.subject_ref))
            for seat_id, to in transfers
        ],
    )


async def save_revoked(
    connection: Connection, agency_id: str, seat_ids: Sequence[str], reason: SeatRevocationReason, now: datetime
) -> None:
    """Set seats to revoked, and delete their holders' data."""
    await connection.execute(
        """
        update seat
        set state = 'revoked', reason = $3, revoked_at = $4, invited_until = null, email = null, name = null
        where agency_id = $1 and seat_id = any($2::text[])
        """,
        agency_id,
        seat_ids,
        reason,
        now,
    )


def _in_order(rows: Sequence[Any]) -> list[Seat]:
    return sorted((_to_seat(row) for row in rows), key=lambda seat: seat.seat_id)


def _to_seat(row: Any) -> Seat:
    return Seat(row["agency_id"], row["seat_id"], row["subject_ref"], SeatState(row["state"]), row["used"])

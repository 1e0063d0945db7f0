"""Seats and their holders."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from muster_entitlements.domain import SeatState
from muster_entitlements.people import Person
from muster_runtime.db import Connection


@dataclass(frozen=True, slots=True)
class Seat:
    """A seat, held or revoked."""

    agency_id: str
    seat_id: str
    subject_ref: str
    state: SeatState


async def find_held(connection: Connection, agency_id: str, subject_refs: Sequence[str]) -> dict[str, str]:
    """The seats that people hold: seat id by subject."""
    rows = await connection.fetch(
        """
        select subject_ref, seat_id
        from seat
        where agency_id = $1 and subject_ref = any($2::text[]) and state <> 'revoked'
        """,
        agency_id,
        list(subject_refs),
    )
    return {row["subject_ref"]: row["seat_id"] for row in rows}


async def add_seats(connection: Connection, agency_id: str, seats: Sequence[tuple[str, Person]], now: datetime) -> None:
    """Give out seats, each with its id, and keep who holds them."""
    seat_ids = [seat_id for seat_id, _ in seats]
    await connection.execute(
        """
        insert into seat (agency_id, seat_id, subject_ref, state, assigned_at)
        select $1, seat_id, subject_ref, 'assigned', $4
        from unnest($2::text[], $3::text[]) as s (seat_id, subject_ref)
        """,
        agency_id,
        seat_ids,
        [person.subject_ref for _, person in seats],
        now,
    )
    await connection.execute(
        """
        insert into holder (agency_id, seat_id, email, name)
        select $1, seat_id, email, name
        from unnest($2::text[], $3::text[], $4::text[]) as h (seat_id, email, name)
        """,
        agency_id,
        seat_ids,
        [person.email for _, person in seats],
        [person.name for _, person in seats],
    )


async def find_seat(connection: Connection, agency_id: str, seat_id: str) -> Seat | None:
    """A seat by its id."""
    row = await connection.fetchrow(
        "select agency_id, seat_id, subject_ref, state from seat where agency_id = $1 and seat_id = $2",
        agency_id,
        seat_id,
    )
    return _to_seat(**row) if row else None


async def activate_seat(connection: Connection, seat: Seat, now: datetime) -> None:
    """Note that an assigned seat is in use."""
    await connection.execute(
        "update seat set state = 'active', activated_at = $3 where agency_id = $1 and seat_id = $2",
        seat.agency_id,
        seat.seat_id,
        now,
    )


async def revoke_seat(connection: Connection, seat: Seat, now: datetime) -> None:
    """Take a held seat back and delete who held it."""
    await connection.execute(
        "update seat set state = 'revoked', revoked_at = $3 where agency_id = $1 and seat_id = $2",
        seat.agency_id,
        seat.seat_id,
        now,
    )
    await connection.execute("delete from holder where agency_id = $1 and seat_id = $2", seat.agency_id, seat.seat_id)


async def revoke_all_seats(connection: Connection, agency_id: str, now: datetime) -> list[Seat]:
    """Take every held seat of an agency back and delete who held them; returns them in the order of their ids."""
    rows = await connection.fetch(
        """
        update seat
        set state = 'revoked', revoked_at = $2
        where agency_id = $1 and state <> 'revoked'
        returning agency_id, seat_id, subject_ref, state
        """,
        agency_id,
        now,
    )
    await connection.execute("delete from holder where agency_id = $1", agency_id)
    return sorted((_to_seat(**row) for row in rows), key=lambda seat: seat.seat_id)


def _to_seat(*, agency_id: str, seat_id: str, subject_ref: str, state: str) -> Seat:
    return Seat(agency_id, seat_id, subject_ref, SeatState(state))

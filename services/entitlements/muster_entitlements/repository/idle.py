"""Idle seats, step by step."""

from dataclasses import dataclass
from datetime import date, datetime

from asyncpg import Record

from muster_contracts.entitlements import SeatRevocationReason
from muster_entitlements.domain.seats import Seat, SeatState
from muster_runtime.database.transactions import Connection


@dataclass(frozen=True, slots=True)
class Step:
    """An agency's seats with IDs after `after` and up to `until`; None: up to the last one."""

    agency_id: str
    after: str
    until: str | None


async def find_step(connection: Connection, agency_id: str, after: str, limit: int) -> Step:
    """The next seats to examine: `limit` of them, or all that are left."""
    until: str | None = await connection.fetchval(
        """
        select seat_id
        from seat
        where agency_id = $1 and seat_id > $2
        order by seat_id
        offset $3
        limit 1
        """,
        agency_id,
        after,
        limit - 1,
    )
    return Step(agency_id, after, until)


async def save_warnings(connection: Connection, step: Step, last_use: date, reclaim_at: datetime) -> list[Seat]:
    """Mark the unmarked seats last used by `last_use`, to be revoked at `reclaim_at`; returns them."""
    rows = await connection.fetch(
        """
        update seat set idle_reclaim_at = $4
        where
            agency_id = $1 and seat_id > $2 and ($3::text is null or seat_id <= $3)
            and state in ('assigned', 'active') and idle_since <= $5 and idle_reclaim_at is null
            and generation = (select generation from pool where agency_id = $1)
        returning agency_id, seat_id, subject_ref, state, activated_at is not null as used
        """,
        step.agency_id,
        step.after,
        step.until,
        reclaim_at,
        last_use,
    )
    return _in_order(rows)


async def save_reclaimed(connection: Connection, step: Step, due_at: datetime, now: datetime) -> list[Seat]:
    """Revoke the marked seats that are due and were not used since, and delete their holders' data."""
    rows = await connection.fetch(
        """
        update seat set state = 'revoked', reason = $6, revoked_at = $5, email = null, name = null
        where
            agency_id = $1 and seat_id > $2 and ($3::text is null or seat_id <= $3)
            and state in ('assigned', 'active') and idle_reclaim_at <= $4
            and generation = (select generation from pool where agency_id = $1)
        returning agency_id, seat_id, subject_ref, state, activated_at is not null as used
        """,
        step.agency_id,
        step.after,
        step.until,
        due_at,
        now,
        SeatRevocationReason.INACTIVITY,
    )
    return _in_order(rows)


async def delete_warnings(connection: Connection, step: Step) -> None:
    """Unmark the seats."""
    await connection.execute(
        """
        update seat set idle_reclaim_at = null
        where
            agency_id = $1 and seat_id > $2 and ($3::text is null or seat_id <= $3)
            and idle_reclaim_at is not null
        """,
        step.agency_id,
        step.after,
        step.until,
    )


def _in_order(rows: list[Record]) -> list[Seat]:
    seats = [
        Seat(row["agency_id"], row["seat_id"], row["subject_ref"], SeatState(row["state"]), row["used"]) for row in rows
    ]
    return sorted(seats, key=lambda seat: seat.seat_id)

"""Closings: ended enrollments whose seats are being revoked."""

from collections.abc import Sequence

from muster_contracts.entitlements import SeatRevocationReason
from muster_entitlements.domain.closings import Closing
from muster_runtime.database.transactions import Connection


async def add_closing(connection: Connection, closing: Closing) -> None:
    """Add a closing, and move the pool to its next generation, so that nobody holds the present seats anymore."""
    await connection.execute(
        """
        insert into closing (
            agency_id, generation, enrollment_id, reason, seats, correlation_id, causation_id, traceparent
        )
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        """,
        closing.agency_id,
        closing.generation,
        closing.enrollment_id,
        closing.reason,
        closing.seats,
        closing.correlation_id,
        closing.causation_id,
        closing.traceparent,
    )
    await connection.execute(
        """
        update pool
        set
            generation = generation + 1, revoking = revoking + in_use, in_use = 0,
            limit_met = false, revision = revision + 1
        where agency_id = $1
        """,
        closing.agency_id,
    )


async def list_closings(connection: Connection, agency_id: str) -> list[Closing]:
    """An agency's closings, earliest first."""
    rows = await connection.fetch(
        """
        select
            agency_id, generation, enrollment_id, reason, seats, seat_id, correlation_id, causation_id, traceparent
        from closing
        where agency_id = $1
        order by generation
        """,
        agency_id,
    )
    return [Closing(**{**row, "reason": SeatRevocationReason(row["reason"])}) for row in rows]


async def save_progress(connection: Connection, closing: Closing, seat_id: str) -> None:
    """Store the last seat examined."""
    await connection.execute(
        "update closing set seat_id = $3 where agency_id = $1 and generation = $2",
        closing.agency_id,
        closing.generation,
        seat_id,
    )


async def delete_closing(connection: Connection, closing: Closing) -> None:
    """Delete a closing whose last seat is revoked."""
    await connection.execute(
        "delete from closing where agency_id = $1 and generation = $2", closing.agency_id, closing.generation
    )


async def save_revoked(connection: Connection, agency_id: str, seats: int) -> None:
    """Subtract revoked seats from the pool's `revoking`. No check depends on that, so the revision stays the same."""
    await connection.execute("update pool set revoking = revoking - $2 where agency_id = $1", agency_id, seats)


async def list_next_seats(
    connection: Connection, closing: Closing, limit: int
) -> tuple[list[tuple[str, str]], str | None]:
    """The next seats of a closing, as ID and subject, and the last seat examined; None once there are no more.

    It examines at most `limit` seats, including those of other generations.
    """
    rows = await connection.fetch(
        """
        select seat_id, subject_ref, generation = $4 and state <> 'revoked' as held
        from seat
        where agency_id = $1 and seat_id > $2
        order by seat_id
        limit $3
        """,
        closing.agency_id,
        closing.seat_id,
        limit,
        closing.generation,
    )
    held = [(row["seat_id"], row["subject_ref"]) for row in rows if row["held"]]
    return held, rows[-1]["seat_id"] if len(rows) == limit else None


async def find_unrevoked(
    connection: Connection, agency_id: str, subject_refs: Sequence[str]
) -> dict[int, list[tuple[str, str]]]:
    """The seats of earlier generations that these people held and that are not revoked yet, by generation."""
    rows = await connection.fetch(
        """
        select generation, seat_id, subject_ref
        from seat
        where
            agency_id = $1 and subject_ref = any($2::text[]) and state <> 'revoked'
            and generation < (select generation from pool where agency_id = $1)
        order by seat_id
        """,
        agency_id,
        subject_refs,
    )
    found: dict[int, list[tuple[str, str]]] = {}
    for row in rows:
        found.setdefault(row["generation"], []).append((row["seat_id"], row["subject_ref"]))
    return found

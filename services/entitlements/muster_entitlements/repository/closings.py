"""Closings: enrollments that are over and whose seats are being revoked."""

from collections.abc import Sequence
from dataclasses import dataclass

from muster_contracts.entitlements import SeatRevocationReason
from muster_entitlements.domain import Pool
from muster_runtime.context import Context
from muster_runtime.database.transactions import Connection


@dataclass(frozen=True, slots=True)
class Closing:
    """The revocation of a generation's seats. `seat_id` is the last one that was looked at; `context` led to it."""

    agency_id: str
    generation: int
    enrollment_id: str
    reason: SeatRevocationReason
    seats: int
    seat_id: str
    context: Context


async def begin(connection: Connection, pool: Pool, reason: SeatRevocationReason, context: Context) -> None:
    """Let all seats in use be held by nobody from now on; they are still to be revoked."""
    await connection.execute(
        """
        insert into closing (
            agency_id, generation, enrollment_id, reason, seats, correlation_id, causation_id, traceparent
        )
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        """,
        pool.agency_id,
        pool.generation,
        pool.enrollment_id,
        reason,
        pool.in_use,
        context.correlation_id,
        context.causation_id,
        context.traceparent,
    )
    await connection.execute(
        """
        update pool
        set
            generation = generation + 1, revoking = revoking + in_use, in_use = 0,
            limit_met = false, revision = revision + 1
        where agency_id = $1
        """,
        pool.agency_id,
    )


async def find_all(connection: Connection, agency_id: str, actor: str) -> list[Closing]:
    """An agency's closings, the earliest first."""
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
    return [
        Closing(
            agency_id=row["agency_id"],
            generation=row["generation"],
            enrollment_id=row["enrollment_id"],
            reason=SeatRevocationReason(row["reason"]),
            seats=row["seats"],
            seat_id=row["seat_id"],
            context=Context(actor, row["correlation_id"], row["causation_id"], row["traceparent"]),
        )
        for row in rows
    ]


async def advance(connection: Connection, closing: Closing, seat_id: str) -> None:
    """Keep how far a closing is."""
    await connection.execute(
        "update closing set seat_id = $3 where agency_id = $1 and generation = $2",
        closing.agency_id,
        closing.generation,
        seat_id,
    )


async def end(connection: Connection, closing: Closing) -> None:
    """A generation's last seat is revoked."""
    await connection.execute(
        "delete from closing where agency_id = $1 and generation = $2", closing.agency_id, closing.generation
    )


async def count_revoked(connection: Connection, agency_id: str, seats: int) -> None:
    """Count seats of earlier generations that are revoked now. No check depends on it: the revision stays."""
    await connection.execute("update pool set revoking = revoking - $2 where agency_id = $1", agency_id, seats)


async def find_step(connection: Connection, closing: Closing, limit: int) -> tuple[list[tuple[str, str]], str | None]:
    """The next seats of a closing, by id and subject, and the last one that was looked at; None after the last.

    However many seats of other generations lie between them, no more than `limit` are looked at.
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


async def find_held(
    connection: Connection, agency_id: str, subject_refs: Sequence[str]
) -> dict[int, list[tuple[str, str]]]:
    """The seats of earlier generations that these people held and that are still to be revoked, by generation."""
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

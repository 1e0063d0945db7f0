"""An enrollment is over: its seats are held by nobody at once, and revoked step by step.

A step is one transaction that looks at STEP_SEATS seats; its deadline is due again at once until none is left. So no
transaction grows with the agency, others have their turn between two steps, and a kill loses one step at most.
"""

from collections.abc import Sequence
from dataclasses import replace

from muster_contracts.entitlements import PersonErased, SeatRevocationReason, SeatRevoked
from muster_entitlements import publishing
from muster_entitlements.domain import Pool
from muster_entitlements.repository import closings, seats
from muster_entitlements.repository.closings import Closing
from muster_runtime.context import Context
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.observability import audit
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

SEATS_CLOSED = "seats-closed"

# A step takes some 30 milliseconds of Postgres and 5 of the event loop.
STEP_SEATS = 1_000


async def close_seats(uow: UnitOfWork, pool: Pool, reason: SeatRevocationReason, cause: str) -> Pool:
    """Let nobody hold a seat of a pool any more, and begin to revoke them; returns the pool after it."""
    if not pool.in_use:
        return pool
    await closings.begin(uow.connection, pool, reason, _context_of(uow, cause))
    _go_on(uow, pool.agency_id)
    return replace(
        pool,
        generation=pool.generation + 1,
        revoking=pool.revoking + pool.in_use,
        in_use=0,
        limit_met=False,
        revision=pool.revision + 1,
    )


async def revoke_step(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Revoke the next seats of an agency's earliest closing."""
    agency_id = due[0].agency_id
    waiting = await closings.find_all(uow.connection, agency_id, uow.context.actor)
    if not waiting:
        return
    closing = waiting[0]
    held, last = await closings.find_step(uow.connection, closing, STEP_SEATS)
    await _revoke(uow, closing, held)
    if last is not None:
        await closings.advance(uow.connection, closing, last)
    else:
        await _end(uow, closing)
    if last is not None or len(waiting) > 1:
        _go_on(uow, agency_id)


async def revoke_earlier(uow: UnitOfWork, pool: Pool, subject_refs: Sequence[str]) -> None:
    """Revoke what is left of an earlier enrollment's seats of people who are given one now: nobody holds two.

    It comes before the new seat is announced, so that the person's erasure does not follow their new record.
    """
    if not pool.revoking:
        return
    held = await closings.find_held(uow.connection, pool.agency_id, subject_refs)
    if not held:
        return
    for closing in await closings.find_all(uow.connection, pool.agency_id, uow.context.actor):
        await _revoke(uow, closing, held.get(closing.generation, []))


async def _revoke(uow: UnitOfWork, closing: Closing, held: Sequence[tuple[str, str]]) -> None:
    if not held:
        return
    agency_id, subject_refs = closing.agency_id, [subject_ref for _, subject_ref in held]
    await seats.revoke(uow.connection, agency_id, [seat_id for seat_id, _ in held], uow.now)
    await closings.count_revoked(uow.connection, agency_id, len(held))
    payloads = publishing.seats_revoked(agency_id, held, closing.reason)
    uow.publish_encoded(SeatRevoked, agency_id, payloads, context=closing.context)
    uow.publish_erased(PersonErased, agency_id, subject_refs, context=closing.context)


async def _end(uow: UnitOfWork, closing: Closing) -> None:
    await closings.end(uow.connection, closing)
    audit.record(
        uow,
        command="RevokeAllSeats",
        agency_id=closing.agency_id,
        subject=closing.enrollment_id,
        after={"seats": closing.seats},
        reason=closing.reason,
    )


def _go_on(uow: UnitOfWork, agency_id: str) -> None:
    deadlines.schedule(uow, [Deadline(SEATS_CLOSED, agency_id, agency_id, uow.now)])


def _context_of(uow: UnitOfWork, cause: str) -> Context:
    envelope = uow.causes.get(cause)
    if envelope is None:
        return replace(uow.context, causation_id=cause)
    return Context(uow.context.actor, envelope.correlation_id, cause, envelope.traceparent)

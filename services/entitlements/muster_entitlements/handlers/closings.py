"""The end of an enrollment: nobody holds its seats from then on, and they are revoked step by step.

A step is one transaction that examines STEP_SEATS seats. Its deadline is immediately due again until none is left. So
no transaction grows with the agency, other agencies get their turn between two steps, and a kill loses at most one.
"""

from collections.abc import Sequence
from dataclasses import replace

from muster_contracts.entitlements import PersonErased, SeatRevocationReason, SeatRevoked
from muster_entitlements import publishing
from muster_entitlements.domain.closings import Closing
from muster_entitlements.domain.pools import Pool
from muster_entitlements.handlers.snapshots import erase_seats
from muster_entitlements.repository import closings, seats
from muster_runtime.context import Context
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.observability import audit
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

SEATS_CLOSED = "seats-closed"

# A step takes about 30 ms of Postgres and 5 ms of the event loop.
STEP_SEATS = 1_000


async def close_seats(uow: UnitOfWork, pool: Pool, reason: SeatRevocationReason, cause: str) -> Pool:
    """End the holding of the pool's seats, and start to revoke them; returns the changed pool."""
    if not pool.in_use:
        return pool
    context = _context_of(uow, cause)
    closing = Closing(
        agency_id=pool.agency_id,
        generation=pool.generation,
        enrollment_id=pool.enrollment_id,
        reason=reason,
        seats=pool.in_use,
        seat_id="",
        correlation_id=context.correlation_id,
        causation_id=context.causation_id,
        traceparent=context.traceparent,
    )
    await closings.add_closing(uow.connection, closing)
    _schedule_step(uow, pool.agency_id)
    return replace(
        pool,
        generation=pool.generation + 1,
        revoking=pool.revoking + pool.in_use,
        in_use=0,
        limit_met=False,
        revision=pool.revision + 1,
    )


async def on_seats_closed_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Revoke the next seats of an agency's earliest closing."""
    agency_id = due[0].agency_id
    waiting = await closings.list_closings(uow.connection, agency_id)
    if not waiting:
        return
    closing = waiting[0]
    held, last = await closings.list_next_seats(uow.connection, closing, STEP_SEATS)
    await _revoke(uow, closing, held)
    if last is not None:
        await closings.save_progress(uow.connection, closing, last)
    else:
        await _end(uow, closing)
    if last is not None or len(waiting) > 1:
        _schedule_step(uow, agency_id)


async def revoke_earlier(uow: UnitOfWork, pool: Pool, subject_refs: Sequence[str]) -> None:
    """Revoke these people's seats from earlier enrollments, if they are not revoked yet: nobody has two seats.

    Call it before the new seat is published, so that a person's erasure is not published after their new record.
    """
    if not pool.revoking:
        return
    held = await closings.find_unrevoked(uow.connection, pool.agency_id, subject_refs)
    if not held:
        return
    for closing in await closings.list_closings(uow.connection, pool.agency_id):
        await _revoke(uow, closing, held.get(closing.generation, []))


async def _revoke(uow: UnitOfWork, closing: Closing, held: Sequence[tuple[str, str]]) -> None:
    if not held:
        return
    agency_id, subject_refs = closing.agency_id, [subject_ref for _, subject_ref in held]
    await seats.save_revoked(uow.connection, agency_id, [seat_id for seat_id, _ in held], closing.reason, uow.now)
    await closings.save_revoked(uow.connection, agency_id, len(held))
    context = Context(uow.context.actor, closing.correlation_id, closing.causation_id, closing.traceparent)
    payloads = publishing.seats_revoked(agency_id, held, closing.reason)
    uow.publish_encoded(SeatRevoked, agency_id, payloads, context=context)
    uow.publish_erased(PersonErased, agency_id, subject_refs, context=context)
    erase_seats(uow, agency_id, subject_refs, context=context)


async def _end(uow: UnitOfWork, closing: Closing) -> None:
    await closings.delete_closing(uow.connection, closing)
    audit.record(
        uow,
        command="RevokeAllSeats",
        agency_id=closing.agency_id,
        subject=closing.enrollment_id,
        after={"seats": closing.seats},
        reason=closing.reason,
    )


def _schedule_step(uow: UnitOfWork, agency_id: str) -> None:
    deadlines.schedule(uow, [Deadline(SEATS_CLOSED, agency_id, agency_id, uow.now)])


def _context_of(uow: UnitOfWork, cause: str) -> Context:
    envelope = uow.causes.get(cause)
    if envelope is None:
        return replace(uow.context, causation_id=cause)
    return Context(uow.context.actor, envelope.correlation_id, cause, envelope.traceparent)

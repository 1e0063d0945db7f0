"""Single seats: assignment, and every later change."""

from datetime import datetime, timedelta

from muster_contracts.entitlements import SeatRevocationReason
from muster_entitlements import publishing
from muster_entitlements.commands import (
    ActivateSeat,
    AssignSeat,
    InviteToSeat,
    MarkUse,
    ReinstateSeat,
    RevokeSeat,
    SuspendSeat,
    TransferSeat,
)
from muster_entitlements.domain import ASSIGNABLE, Pool, PoolState, Seat, SeatAction, SeatState
from muster_entitlements.errors import (
    PoolNotOpen,
    PoolUnknown,
    SeatAlreadyHeld,
    SeatCapReached,
    SeatRevokedAlready,
    SeatStateRefused,
    SeatUnknown,
)
from muster_entitlements.handlers.closings import revoke_earlier
from muster_entitlements.people import Person
from muster_entitlements.replies import SeatReply, SeatStateReply
from muster_entitlements.repository import policies, pools, seats
from muster_runtime.database import writes
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.identifiers import new_id
from muster_runtime.observability import audit
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

INVITATION_EXPIRED = "invitation-expired"


async def assign_seat(uow: UnitOfWork, command: AssignSeat) -> SeatReply:
    """Give a person a seat, or keep it for them.

    Raises PoolUnknown, PoolNotOpen, SeatAlreadyHeld or SeatCapReached.
    """
    person = command.person
    pool, held_seat_id = await _pool_and_seat(uow, command.agency_id, person)
    _require_state(pool, pool.state(uow.now) in ASSIGNABLE, uow)
    _require_no_seat(person, held_seat_id)
    if not pool.free:
        raise SeatCapReached(pool.agency_id, pool.cap)
    seat = Seat(pool.agency_id, new_id("seat", uow.now), person.subject_ref, command.state, used=False)
    await revoke_earlier(uow, pool, [person.subject_ref])
    invited_until = await _invitation_end(uow, pool.agency_id) if command.state is SeatState.INVITED else None
    uow.writes.add(
        seats.add_seat(pool, seat.seat_id, person, command.state, uow.now, invited_until),
        pools.use_seats(pool.agency_id, 1, limit_met=pool.limit_met),
    )
    if command.state is SeatState.ASSIGNED:
        uow.publish(publishing.seat_assigned(seat))
    else:
        uow.publish(publishing.seat_reserved(seat))
    if invited_until is not None:
        _invite(uow, seat, invited_until)
    uow.publish(publishing.person_recorded(pool.agency_id, person))
    audit.record(
        uow,
        command="AssignSeat",
        agency_id=pool.agency_id,
        subject=seat.seat_id,
        after={"subject_ref": person.subject_ref, "state": command.state},
    )
    return SeatReply(
        seat_id=seat.seat_id,
        subject_ref=person.subject_ref,
        state=command.state,
        assigned_at=uow.now,
        email=person.email,
        name=person.name,
    )


async def report_limit_reached(uow: UnitOfWork, agency_id: str) -> None:
    """Say that a seat was refused for want of a free one, if that is still so and has not been said yet.

    The refused command was rolled back, and with it all that it could have said: this is a transaction of its own.
    """
    pool = await known_pool(uow, agency_id)
    if not pool.free:
        await publish_limit_reached(uow, pool, 1)


async def invite_to_seat(uow: UnitOfWork, command: InviteToSeat) -> SeatStateReply:
    """Invite the person to a seat that is reserved for them; repeating it restarts the invitation's time.

    Raises PoolUnknown, PoolNotOpen, SeatUnknown, SeatRevokedAlready or SeatStateRefused.
    """
    pool = await known_pool(uow, command.agency_id)
    _require_state(pool, pool.state(uow.now) in ASSIGNABLE, uow)
    seat, state = await _seat_for(uow, command.agency_id, command.seat_id, SeatAction.INVITE)
    until = await _invitation_end(uow, seat.agency_id)
    await seats.invite(uow.connection, seat, until)
    _invite(uow, seat, until)
    await pools.touch_pool(uow.connection, pool.agency_id)
    return _changed(uow, "InviteToSeat", seat, state)


async def activate_seat(uow: UnitOfWork, command: ActivateSeat) -> SeatStateReply:
    """Note that a seat is in use; who was invited holds it from now on. To do so again changes nothing.

    Raises PoolUnknown, PoolNotOpen, SeatUnknown, SeatRevokedAlready or SeatStateRefused.
    """
    pool = await known_pool(uow, command.agency_id)
    _require_state(pool, pool.state(uow.now) is PoolState.OPEN, uow)
    seat, state = await _seat_for(uow, command.agency_id, command.seat_id, SeatAction.ACTIVATE)
    if state is not seat.state:
        await _activate(uow, seat)
    return _changed(uow, "ActivateSeat", seat, state)


async def mark_use(uow: UnitOfWork, command: MarkUse) -> None:
    """Note that a person uses their seat today, which activates it at the first time.

    A seat that has been taken back meanwhile stays so.
    """
    seat = (await seats.find_held(uow.connection, command.agency_id, [command.subject_ref])).get(command.subject_ref)
    if seat is None:
        return
    if seat.state is SeatState.ASSIGNED:
        await _activate(uow, seat)
        _changed(uow, "MarkUse", seat, SeatState.ACTIVE)
    elif seat.state is SeatState.ACTIVE:
        await seats.mark_use(uow.connection, seat, uow.now.date())


async def suspend_seat(uow: UnitOfWork, command: SuspendSeat) -> SeatStateReply:
    """Let the person keep the seat without using it; to do so again changes nothing.

    Raises PoolUnknown, SeatUnknown, SeatRevokedAlready or SeatStateRefused.
    """
    pool = await known_pool(uow, command.agency_id)
    seat, state = await _seat_for(uow, command.agency_id, command.seat_id, SeatAction.SUSPEND)
    if state is not seat.state:
        await seats.suspend(uow.connection, seat.agency_id, [seat.seat_id])
        await pools.touch_pool(uow.connection, pool.agency_id)
        uow.publish(publishing.seat_suspended(seat, command.reason))
    return _changed(uow, "SuspendSeat", seat, state, command.reason)


async def reinstate_seat(uow: UnitOfWork, command: ReinstateSeat) -> SeatStateReply:
    """Let a suspended seat be used again; to do so again changes nothing.

    Raises PoolUnknown, SeatUnknown, SeatRevokedAlready or SeatStateRefused.
    """
    pool = await known_pool(uow, command.agency_id)
    seat, state = await _seat_for(uow, command.agency_id, command.seat_id, SeatAction.REINSTATE)
    if state is not seat.state:
        await seats.reinstate(uow.connection, seat, state, uow.now.date())
        await pools.touch_pool(uow.connection, pool.agency_id)
        uow.publish(publishing.seat_reinstated(seat))
    return _changed(uow, "ReinstateSeat", seat, state)


async def transfer_seat(uow: UnitOfWork, command: TransferSeat) -> SeatStateReply:
    """Give a held seat to another person, who has not used it yet; the earlier one is erased.

    Raises PoolUnknown, PoolNotOpen, SeatUnknown, SeatRevokedAlready, SeatStateRefused or SeatAlreadyHeld.
    """
    person = command.person
    pool, held_seat_id = await _pool_and_seat(uow, command.agency_id, person)
    _require_state(pool, pool.state(uow.now) in ASSIGNABLE, uow)
    seat, state = await _seat_for(uow, command.agency_id, command.seat_id, SeatAction.TRANSFER)
    _require_no_seat(person, held_seat_id)
    await revoke_earlier(uow, pool, [person.subject_ref])
    await seats.transfer(uow.connection, seat.agency_id, [(seat.seat_id, person)], uow.now)
    await pools.touch_pool(uow.connection, pool.agency_id)
    uow.publish(publishing.seat_transferred(seat, person.subject_ref))
    uow.publish(publishing.person_erased(seat))
    uow.publish(publishing.person_recorded(seat.agency_id, person))
    _changed(uow, "TransferSeat", seat, state)
    return SeatStateReply(seat_id=seat.seat_id, subject_ref=person.subject_ref, state=state)


async def revoke_seat(uow: UnitOfWork, command: RevokeSeat) -> SeatStateReply:
    """Take a seat back, whatever the pool's state, and erase its person; to do so again changes nothing.

    A person holds one seat at most, so nothing else needs their data. Raises PoolUnknown or SeatUnknown.
    """
    pool = await known_pool(uow, command.agency_id)
    seat = await _known_seat(uow, command.agency_id, command.seat_id)
    if seat.state is not SeatState.REVOKED:
        await seats.revoke(uow.connection, seat.agency_id, [seat.seat_id], uow.now)
        await writes.execute(uow.connection, pools.use_seats(pool.agency_id, -1, limit_met=False))
        uow.publish(publishing.seat_revoked(seat, SeatRevocationReason.REQUESTED))
        uow.publish(publishing.person_erased(seat))
    return _changed(uow, "RevokeSeat", seat, SeatState.REVOKED, command.reason)


async def known_pool(uow: UnitOfWork, agency_id: str) -> Pool:
    """The agency's pool. Raises PoolUnknown."""
    pool = await pools.find_pool(uow.connection, agency_id)
    if pool is None:
        raise PoolUnknown(agency_id)
    return pool


async def publish_limit_reached(uow: UnitOfWork, pool: Pool, refused: int) -> None:
    """Say that seats were refused for want of a free one, once until one becomes free."""
    if not pool.limit_met:
        await writes.execute(uow.connection, pools.use_seats(pool.agency_id, 0, limit_met=True))
        uow.publish(publishing.seat_limit_reached(pool, refused))


async def _pool_and_seat(uow: UnitOfWork, agency_id: str, person: Person) -> tuple[Pool, str | None]:
    """The agency's pool, and the seat that the person has there."""
    pool, held_seat_id = await pools.find_pool_and_seat(uow.connection, agency_id, person.subject_ref)
    if pool is None:
        raise PoolUnknown(agency_id)
    return pool, held_seat_id


async def _known_seat(uow: UnitOfWork, agency_id: str, seat_id: str) -> Seat:
    seat = await seats.find_seat(uow.connection, agency_id, seat_id)
    if seat is None:
        raise SeatUnknown(agency_id, seat_id)
    return seat


async def _seat_for(uow: UnitOfWork, agency_id: str, seat_id: str, action: SeatAction) -> tuple[Seat, SeatState]:
    """A seat, and the state to which an action brings it."""
    seat = await _known_seat(uow, agency_id, seat_id)
    state = seat.after(action)
    if state is not None:
        return seat, state
    if seat.state is SeatState.REVOKED:
        raise SeatRevokedAlready(seat.seat_id)
    raise SeatStateRefused(seat, action)


def _require_state(pool: Pool, allowed: bool, uow: UnitOfWork) -> None:
    if not allowed:
        raise PoolNotOpen(pool.agency_id, pool.state(uow.now))


def _require_no_seat(person: Person, held_seat_id: str | None) -> None:
    if held_seat_id is not None:
        raise SeatAlreadyHeld(person.subject_ref, held_seat_id)


async def _invitation_end(uow: UnitOfWork, agency_id: str) -> datetime:
    """The end of an invitation that is sent now."""
    policy, _ = await policies.find_policy(uow.connection, agency_id)
    return uow.now + timedelta(days=policy.invitation_days)


def _invite(uow: UnitOfWork, seat: Seat, until: datetime) -> None:
    deadlines.schedule(uow, [Deadline(INVITATION_EXPIRED, seat.agency_id, seat.seat_id, until)])
    uow.publish(publishing.seat_invited(seat, until))


async def _activate(uow: UnitOfWork, seat: Seat) -> None:
    await seats.activate(uow.connection, seat, uow.now)
    await pools.touch_pool(uow.connection, seat.agency_id)
    if seat.state is SeatState.INVITED:
        uow.publish(publishing.seat_assigned(seat))
    uow.publish(publishing.seat_activated(seat))


def _changed(uow: UnitOfWork, command: str, seat: Seat, state: SeatState, reason: str | None = None) -> SeatStateReply:
    audit.record(
        uow,
        command=command,
        agency_id=seat.agency_id,
        subject=seat.seat_id,
        before={"state": seat.state},
        after={"state": state},
        reason=reason,
    )
    return SeatStateReply(seat_id=seat.seat_id, subject_ref=seat.subject_ref, state=state)

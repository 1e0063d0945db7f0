"""The commands on single seats, and the expiry of invitations."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

from muster_contracts.entitlements import SeatActivated, SeatRevocationReason
from muster_entitlements import publishing
from muster_entitlements.commands import (
    ActivateSeat,
    AssignSeat,
    InviteToSeat,
    ReinstateSeat,
    RevokeSeat,
    SuspendSeat,
    TransferSeat,
)
from muster_entitlements.domain.people import Person
from muster_entitlements.domain.pools import ASSIGNABLE, Pool, PoolState, Standing
from muster_entitlements.domain.seats import Seat, SeatAction, SeatState
from muster_entitlements.errors import (
    PoolNotOpen,
    SeatAlreadyHeld,
    SeatCapReached,
    SeatRevokedAlready,
    SeatStateRefused,
)
from muster_entitlements.handlers.closings import revoke_earlier
from muster_entitlements.handlers.lookups import known_pool, known_pool_and_standing, known_seat
from muster_entitlements.handlers.seat_trials import begin_seat_trials
from muster_entitlements.handlers.snapshots import publish_new_seats, publish_subjects
from muster_entitlements.publishing.snapshots import access_erased
from muster_entitlements.replies import SeatReply, SeatStateReply
from muster_entitlements.repository import policies, pools, seat_trials, seats
from muster_entitlements.repository.seat_trials import Activated
from muster_entitlements.repository.seats import SeatColumns
from muster_runtime.database import writes
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.identifiers import new_id
from muster_runtime.observability import audit
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

INVITATION_EXPIRED = "invitation-expired"


async def assign_seat(uow: UnitOfWork, command: AssignSeat) -> SeatReply:
    """Assign a seat to a person, or keep it for them.

    Raises PoolUnknown, PoolNotOpen, SeatAlreadyHeld or SeatCapReached.
    """
    person = command.person
    pool, standing = await known_pool_and_standing(uow, command.agency_id, person.subject_ref)
    _require_state(pool, pool.state(uow.now) in ASSIGNABLE, uow)
    _require_no_seat(person, standing.seat_id)
    if not pool.free:
        raise SeatCapReached(pool.agency_id, pool.cap)
    seat = Seat(pool.agency_id, new_id("seat", uow.now), person.subject_ref, command.state, used=False)
    await revoke_earlier(uow, pool, [person.subject_ref])
    invited_until = await _invitation_end(uow, pool.agency_id) if command.state is SeatState.INVITED else None
    began = _began(person, standing)
    columns = SeatColumns(
        [seat.seat_id], [person.subject_ref], [person.email], [person.name or ""], began, [command.unit or ""]
    )
    uow.writes.add(
        seats.add_seats(
            pool.agency_id, columns, seat.state, uow.now, generation=pool.generation, invited_until=invited_until
        ),
        pools.save_seats_in_use(pool.agency_id, 1, limit_met=pool.limit_met),
    )
    if command.state is SeatState.ASSIGNED:
        uow.publish(publishing.seat_assigned(seat, command.unit))
    else:
        uow.publish(publishing.seat_reserved(seat))
    if invited_until is not None:
        _invite(uow, seat, invited_until)
    uow.publish(publishing.person_recorded(pool.agency_id, person))
    await publish_new_seats(uow, pool, [person.subject_ref], command.state, began, owning=standing.owning)
    await begin_seat_trials(uow, pool.agency_id, began.values())
    audit.record(
        uow,
        command="AssignSeat",
        agency_id=pool.agency_id,
        subject=seat.seat_id,
        after={"subject_ref": person.subject_ref, "state": command.state, "unit": command.unit},
    )
    return SeatReply(
        seat_id=seat.seat_id,
        subject_ref=person.subject_ref,
        state=command.state,
        assigned_at=uow.now,
        invited_until=invited_until,
        unused_since=uow.now.date(),
        unit=command.unit,
        email=person.email,
        name=person.name,
    )


async def invite_to_seat(uow: UnitOfWork, command: InviteToSeat) -> SeatStateReply:
    """Invite the person to a seat that is reserved for them; repeating it restarts the invitation's time.

    Raises PoolUnknown, PoolNotOpen, SeatUnknown, SeatRevokedAlready or SeatStateRefused.
    """
    pool = await known_pool(uow, command.agency_id)
    _require_state(pool, pool.state(uow.now) in ASSIGNABLE, uow)
    seat, state = await _seat_for(uow, command.agency_id, command.seat_id, SeatAction.INVITE)
    until = await _invitation_end(uow, seat.agency_id)
    await seats.save_invited(uow.connection, seat, until)
    _invite(uow, seat, until)
    await pools.save_revision(uow.connection, pool.agency_id)
    await publish_subjects(uow, seat.agency_id, [seat.subject_ref])
    return record_change(uow, "InviteToSeat", seat, state)


async def activate_seat(uow: UnitOfWork, command: ActivateSeat) -> SeatStateReply:
    """Set a seat to active, which accepts an invitation; repeating it changes nothing.

    Raises PoolUnknown, PoolNotOpen, SeatUnknown, SeatRevokedAlready or SeatStateRefused.
    """
    pool = await known_pool(uow, command.agency_id)
    _require_state(pool, pool.state(uow.now) is PoolState.OPEN, uow)
    seat, state = await _seat_for(uow, command.agency_id, command.seat_id, SeatAction.ACTIVATE)
    if state is not seat.state:
        await activate(uow, [seat])
    return record_change(uow, "ActivateSeat", seat, state)


async def suspend_seat(uow: UnitOfWork, command: SuspendSeat) -> SeatStateReply:
    """Suspend a seat: the person keeps it but cannot use it; repeating it changes nothing.

    Raises PoolUnknown, SeatUnknown, SeatRevokedAlready or SeatStateRefused.
    """
    pool = await known_pool(uow, command.agency_id)
    seat, state = await _seat_for(uow, command.agency_id, command.seat_id, SeatAction.SUSPEND)
    if state is not seat.state:
        await seats.save_suspended(uow.connection, seat.agency_id, [seat.seat_id], command.reason)
        await pools.save_revision(uow.connection, pool.agency_id)
        uow.publish(publishing.seat_suspended(seat, command.reason))
        await publish_subjects(uow, seat.agency_id, [seat.subject_ref])
    return record_change(uow, "SuspendSeat", seat, state, command.reason)


async def reinstate_seat(uow: UnitOfWork, command: ReinstateSeat) -> SeatStateReply:
    """Let a suspended seat be used again; repeating it changes nothing.

    Raises PoolUnknown, SeatUnknown, SeatRevokedAlready or SeatStateRefused.
    """
    pool = await known_pool(uow, command.agency_id)
    seat, state = await _seat_for(uow, command.agency_id, command.seat_id, SeatAction.REINSTATE)
    if state is not seat.state:
        await seats.save_reinstated(uow.connection, seat, state, uow.now.date())
        await pools.save_revision(uow.connection, pool.agency_id)
        uow.publish(publishing.seat_reinstated(seat))
        await publish_subjects(uow, seat.agency_id, [seat.subject_ref])
    return record_change(uow, "ReinstateSeat", seat, state)


async def transfer_seat(uow: UnitOfWork, command: TransferSeat) -> SeatStateReply:
    """Transfer a held seat to another person, and erase the previous one.

    Raises PoolUnknown, PoolNotOpen, SeatUnknown, SeatRevokedAlready, SeatStateRefused or SeatAlreadyHeld.
    """
    person = command.person
    pool, standing = await known_pool_and_standing(uow, command.agency_id, person.subject_ref)
    _require_state(pool, pool.state(uow.now) in ASSIGNABLE, uow)
    seat, state = await _seat_for(uow, command.agency_id, command.seat_id, SeatAction.TRANSFER)
    _require_no_seat(person, standing.seat_id)
    await revoke_earlier(uow, pool, [person.subject_ref])
    await seat_trials.add_lost_trials(uow.connection, seat.agency_id, [seat.seat_id])
    began = _began(person, standing)
    await seats.save_transferred(uow.connection, seat.agency_id, [(seat.seat_id, person)], uow.now, began)
    await begin_seat_trials(uow, seat.agency_id, began.values())
    await pools.save_revision(uow.connection, pool.agency_id)
    uow.publish(publishing.seat_transferred(seat, person.subject_ref))
    uow.publish(publishing.person_erased(seat))
    uow.publish(publishing.person_recorded(seat.agency_id, person))
    await publish_subjects(uow, seat.agency_id, [seat.subject_ref, person.subject_ref])
    record_change(uow, "TransferSeat", seat, state)
    return SeatStateReply(seat_id=seat.seat_id, subject_ref=person.subject_ref, state=state)


async def revoke_seat(uow: UnitOfWork, command: RevokeSeat) -> SeatStateReply:
    """Revoke a seat, in any state of the pool, and erase its person; repeating it changes nothing.

    A person holds at most one seat, so nothing else needs their data. Raises PoolUnknown or SeatUnknown.
    """
    pool = await known_pool(uow, command.agency_id)
    seat = await known_seat(uow, command.agency_id, command.seat_id)
    if seat.state is not SeatState.REVOKED:
        reason = SeatRevocationReason.REQUESTED
        await seats.save_revoked(uow.connection, seat.agency_id, [seat.seat_id], reason, uow.now)
        await writes.execute(uow.connection, pools.save_seats_in_use(pool.agency_id, -1, limit_met=False))
        uow.publish(publishing.seat_revoked(seat, reason))
        uow.publish(publishing.person_erased(seat))
        uow.publish_state(access_erased(seat.agency_id, seat.subject_ref))
    return record_change(uow, "RevokeSeat", seat, SeatState.REVOKED, command.reason)


async def on_invitation_expired_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Expire invitations that were not accepted, repeated, or revoked meanwhile."""
    agency_id, due_at = due[0].agency_id, due[0].due_at
    seat_ids = [deadline.subject for deadline in due]
    expired = await seats.save_expired_invitations(uow.connection, agency_id, seat_ids, due_at)
    if not expired:
        return
    await pools.save_revision(uow.connection, agency_id)
    await publish_subjects(uow, agency_id, [seat.subject_ref for seat in expired])
    for seat in expired:
        uow.publish(publishing.seat_invitation_expired(seat), time=due_at)
    audit.record(uow, command="ExpireInvitations", agency_id=agency_id, after={"seats": len(expired)})


async def _seat_for(uow: UnitOfWork, agency_id: str, seat_id: str, action: SeatAction) -> tuple[Seat, SeatState]:
    """A seat, and its state after an action. Raises SeatUnknown, SeatRevokedAlready, or SeatStateRefused."""
    seat = await known_seat(uow, agency_id, seat_id)
    state = seat.after(action)
    if state is not None:
        return seat, state
    if seat.state is SeatState.REVOKED:
        raise SeatRevokedAlready(seat.seat_id)
    raise SeatStateRefused(seat.seat_id, seat.state.value, action.value)


def _require_state(pool: Pool, allowed: bool, uow: UnitOfWork) -> None:
    if not allowed:
        raise PoolNotOpen(pool.agency_id, pool.state(uow.now).value)


def _require_no_seat(person: Person, held_seat_id: str | None) -> None:
    if held_seat_id is not None:
        raise SeatAlreadyHeld(person.subject_ref, held_seat_id)


def _began(person: Person, standing: Standing) -> dict[str, datetime]:
    return {} if standing.began_at is None else {person.subject_ref: standing.began_at}


async def _invitation_end(uow: UnitOfWork, agency_id: str) -> datetime:
    """When an invitation that is sent now ends."""
    policy, _ = await policies.find_policy(uow.connection, agency_id)
    return uow.now + timedelta(days=policy.invitation_days)


def _invite(uow: UnitOfWork, seat: Seat, until: datetime) -> None:
    deadlines.schedule(uow, [Deadline(INVITATION_EXPIRED, seat.agency_id, seat.seat_id, until)])
    uow.publish(publishing.seat_invited(seat, until))


async def activate(uow: UnitOfWork, used: Sequence[Seat]) -> None:
    """Set seats of different people to active, and publish that in this order.

    The number of statements depends on how many agencies there are, and not on how many seats.
    """
    activated: defaultdict[str, list[Activated]] = defaultdict(list)
    for each in await seat_trials.save_activated(uow.connection, used, uow.now):
        activated[each.seat.agency_id].append(each)
    await pools.save_revision(uow.connection, *activated)
    for agency_id, own in activated.items():
        await begin_seat_trials(uow, agency_id, {each.began_at for each in own if each.anchors_windows})
        for each in own:
            if each.seat.state is SeatState.INVITED:
                uow.publish(publishing.seat_assigned(each.seat, each.unit))
        uow.publish_encoded(SeatActivated, agency_id, publishing.seats_activated(each.seat for each in own))
        await publish_subjects(uow, agency_id, [each.seat.subject_ref for each in own])


def record_change(
    uow: UnitOfWork, command: str, seat: Seat, state: SeatState, reason: str | None = None
) -> SeatStateReply:
    """Record a change of a seat's state in the audit trail; returns the reply to the command."""
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

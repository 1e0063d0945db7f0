"""Seats: assigned, activated and revoked on request."""

from collections.abc import Sequence
from dataclasses import dataclass

from muster_contracts.entitlements import SeatRevocationReason
from muster_entitlements import publishing
from muster_entitlements.commands import ActivateSeat, AssignSeat, AssignSeats, RevokeSeat
from muster_entitlements.domain import ASSIGNABLE, Pool, PoolState, SeatState
from muster_entitlements.errors import (
    PoolNotOpen,
    PoolUnknown,
    SeatAlreadyHeld,
    SeatCapReached,
    SeatRevokedAlready,
    SeatUnknown,
)
from muster_entitlements.people import Person
from muster_entitlements.replies import Outcome, SeatReply, SeatStateReply
from muster_entitlements.repository import pools, seats
from muster_entitlements.repository.seats import Seat
from muster_runtime import audit
from muster_runtime.db import UnitOfWork
from muster_runtime.identifiers import new_id


@dataclass(frozen=True, slots=True)
class Assignment:
    """What became of one person of an AssignSeats."""

    outcome: Outcome
    reason: str | None = None


async def assign_seat(uow: UnitOfWork, command: AssignSeat) -> SeatReply:
    """Give a person a seat.

    Raises PoolUnknown, PoolNotOpen, SeatAlreadyHeld or SeatCapReached.
    """
    pool, person = await _known_pool(uow, command.agency_id), command.person
    _require_state(pool, pool.state(uow.now) in ASSIGNABLE, uow)
    held = await seats.find_held(uow.connection, pool.agency_id, [person.subject_ref])
    if held:
        raise SeatAlreadyHeld(person.subject_ref, held[person.subject_ref])
    if not pool.free:
        raise SeatCapReached(pool.agency_id, pool.cap)
    [seat_id] = await _give_out(uow, pool, [person])
    await audit.record(
        uow,
        command="AssignSeat",
        agency_id=pool.agency_id,
        subject=seat_id,
        after={"subject_ref": person.subject_ref, "state": SeatState.ASSIGNED},
    )
    return SeatReply(
        seat_id=seat_id,
        subject_ref=person.subject_ref,
        state=SeatState.ASSIGNED,
        assigned_at=uow.now,
        email=person.email,
        name=person.name,
    )


async def assign_seats(uow: UnitOfWork, command: AssignSeats) -> list[Assignment]:
    """Give each of many persons a seat, in their order, as far as the cap goes. Raises PoolUnknown.

    A person who holds one already keeps it; every other refusal has its reason.
    """
    pool = await _known_pool(uow, command.agency_id)
    state = pool.state(uow.now)
    if state not in ASSIGNABLE:
        return [Assignment(Outcome.REFUSED, state.value) for _ in command.people]
    held = await seats.find_held(uow.connection, pool.agency_id, [person.subject_ref for person in command.people])
    wanted = {person.subject_ref: person for person in reversed(command.people) if person.subject_ref not in held}
    in_turn = [*dict.fromkeys(person.subject_ref for person in command.people if person.subject_ref in wanted)]
    given, refused = in_turn[: pool.free], set(in_turn[pool.free :])
    await _give_out(uow, pool, [wanted[subject_ref] for subject_ref in given])
    if refused:
        await _say_limit_met(uow, pool, len(refused))
    await audit.record(
        uow,
        command="AssignSeats",
        agency_id=pool.agency_id,
        after={"asked": len(command.people), "assigned": len(given), "refused": len(refused)},
    )
    return _assignments(command.people, set(given), refused)


async def meet_limit(uow: UnitOfWork, agency_id: str) -> None:
    """Say that a seat was refused for want of a free one, if that is still so and has not been said yet.

    The refused command was rolled back, and with it all that it could have said: this is a transaction of its own.
    """
    pool = await _known_pool(uow, agency_id)
    if not pool.free:
        await _say_limit_met(uow, pool, 1)


async def activate_seat(uow: UnitOfWork, command: ActivateSeat) -> SeatStateReply:
    """Note that a seat is in use; to do so again changes nothing.

    Raises PoolUnknown, PoolNotOpen, SeatUnknown or SeatRevokedAlready.
    """
    pool = await _known_pool(uow, command.agency_id)
    _require_state(pool, pool.state(uow.now) is PoolState.OPEN, uow)
    seat = await _known_seat(uow, command.agency_id, command.seat_id)
    if seat.state is SeatState.REVOKED:
        raise SeatRevokedAlready(seat.seat_id)
    if seat.state is SeatState.ASSIGNED:
        await seats.activate_seat(uow.connection, seat, uow.now)
        await pools.touch_pool(uow.connection, pool.agency_id)
        uow.publish(publishing.seat_activated(seat))
    await _record_change(uow, "ActivateSeat", seat, SeatState.ACTIVE)
    return SeatStateReply(seat_id=seat.seat_id, subject_ref=seat.subject_ref, state=SeatState.ACTIVE)


async def revoke_seat(uow: UnitOfWork, command: RevokeSeat) -> SeatStateReply:
    """Take a seat back, whatever the pool's state, and erase its person; to do so again changes nothing.

    A person holds one seat at most, so nothing else needs their data. Raises PoolUnknown or SeatUnknown.
    """
    pool = await _known_pool(uow, command.agency_id)
    seat = await _known_seat(uow, command.agency_id, command.seat_id)
    if seat.state is not SeatState.REVOKED:
        await seats.revoke_seat(uow.connection, seat, uow.now)
        await pools.use_seats(uow.connection, pool.agency_id, -1, limit_met=False)
        uow.publish(publishing.seat_revoked(seat, SeatRevocationReason.REQUESTED))
        uow.publish(publishing.person_erased(seat))
    await _record_change(uow, "RevokeSeat", seat, SeatState.REVOKED, command.reason)
    return SeatStateReply(seat_id=seat.seat_id, subject_ref=seat.subject_ref, state=SeatState.REVOKED)


async def _known_pool(uow: UnitOfWork, agency_id: str) -> Pool:
    pool = await pools.find_pool(uow.connection, agency_id)
    if pool is None:
        raise PoolUnknown(agency_id)
    return pool


async def _known_seat(uow: UnitOfWork, agency_id: str, seat_id: str) -> Seat:
    seat = await seats.find_seat(uow.connection, agency_id, seat_id)
    if seat is None:
        raise SeatUnknown(agency_id, seat_id)
    return seat


def _require_state(pool: Pool, allowed: bool, uow: UnitOfWork) -> None:
    if not allowed:
        raise PoolNotOpen(pool.agency_id, pool.state(uow.now))


async def _give_out(uow: UnitOfWork, pool: Pool, people: Sequence[Person]) -> list[str]:
    if not people:
        return []
    given = [(new_id("seat", uow.now), person) for person in people]
    await seats.add_seats(uow.connection, pool.agency_id, given, uow.now)
    await pools.use_seats(uow.connection, pool.agency_id, len(given), limit_met=pool.limit_met)
    for seat_id, person in given:
        uow.publish(publishing.seat_assigned(pool.agency_id, seat_id, person))
    for _, person in given:
        uow.publish(publishing.person_recorded(pool.agency_id, person))
    return [seat_id for seat_id, _ in given]


async def _say_limit_met(uow: UnitOfWork, pool: Pool, refused: int) -> None:
    if not pool.limit_met:
        await pools.use_seats(uow.connection, pool.agency_id, 0, limit_met=True)
        uow.publish(publishing.seat_limit_reached(pool, refused))


def _assignments(people: Sequence[Person], given: set[str], refused: set[str]) -> list[Assignment]:
    assignments = []
    for person in people:
        if person.subject_ref in refused:
            assignments.append(Assignment(Outcome.REFUSED, SeatCapReached.slug))
        elif person.subject_ref in given:
            given.remove(person.subject_ref)  # the first of a person's rows has the seat; the others find it held
            assignments.append(Assignment(Outcome.ASSIGNED))
        else:
            assignments.append(Assignment(Outcome.ALREADY_HELD))
    return assignments


async def _record_change(
    uow: UnitOfWork, command: str, seat: Seat, after: SeatState, reason: str | None = None
) -> None:
    await audit.record(
        uow,
        command=command,
        agency_id=seat.agency_id,
        subject=seat.seat_id,
        before={"state": seat.state},
        after={"state": after},
        reason=reason,
    )

"""What is agreed on for an agency's seats, and what follows by time alone: void invitations and idle seats."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, time, timedelta

from muster_contracts.entitlements import SeatRevocationReason
from muster_entitlements import publishing
from muster_entitlements.commands import ResizePool, SetSeatPolicy
from muster_entitlements.domain import PoolState, Seat
from muster_entitlements.errors import CapBelowUse
from muster_entitlements.handlers.seats import known_pool
from muster_entitlements.replies import PoolReply, SeatPolicyReply
from muster_entitlements.repository import policies, pools, seats
from muster_runtime import audit, deadlines
from muster_runtime.db import UnitOfWork
from muster_runtime.deadlines import Deadline
from muster_runtime.tenancy import PreconditionFailed

IDLE_SEATS = "idle-seats"

# A look this soon after its midnight counts as made at it, and a warning as given then.
_PUNCTUAL = timedelta(minutes=1)


async def resize_pool(uow: UnitOfWork, command: ResizePool) -> PoolReply:
    """Agree on another number of seats; the same number changes nothing. Raises PoolUnknown or CapBelowUse."""
    pool = await known_pool(uow, command.agency_id)
    if command.cap < pool.in_use:
        raise CapBelowUse(command.cap, pool.in_use)
    if command.cap != pool.cap:
        limit_met = pool.limit_met and command.cap == pool.in_use
        await pools.resize_pool(uow.connection, pool.agency_id, command.cap, limit_met=limit_met)
        uow.publish(publishing.seat_pool_resized(pool, command.cap))
    await audit.record(
        uow,
        command="ResizePool",
        agency_id=pool.agency_id,
        before={"cap": pool.cap},
        after={"cap": command.cap},
    )
    return PoolReply.of(await known_pool(uow, command.agency_id), uow.now)


async def set_seat_policy(uow: UnitOfWork, command: SetSeatPolicy) -> SeatPolicyReply:
    """Lay down what holds for an agency's seats. Raises PoolUnknown or PreconditionFailed."""
    pool = await known_pool(uow, command.agency_id)
    previous, version = await policies.find_policy(uow.connection, pool.agency_id)
    if command.if_version not in (None, version):
        raise PreconditionFailed(f"the seat policy of {pool.agency_id} is in version {version}")
    await policies.put_policy(uow.connection, pool.agency_id, command.policy, version + 1)
    if command.policy.idle_days is None:
        await deadlines.cancel(uow, pool.agency_id, IDLE_SEATS, [pool.agency_id])
        await seats.forget_warnings(uow.connection, pool.agency_id)
    else:
        await _look_at_next_midnight(uow, pool.agency_id, uow.now)
    await audit.record(
        uow,
        command="SetSeatPolicy",
        agency_id=pool.agency_id,
        before=asdict(previous),
        after=asdict(command.policy),
    )
    return SeatPolicyReply.of(command.policy, version + 1)


async def expire_invitations(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Say that invitations are void, but for those that were taken up, sent again or taken back meanwhile."""
    agency_id, due_at = due[0].agency_id, due[0].due_at
    expired = await seats.expire_invitations(uow.connection, agency_id, [deadline.subject for deadline in due], due_at)
    if not expired:
        return
    await pools.touch_pool(uow.connection, agency_id)
    for seat in expired:
        uow.publish(publishing.seat_invitation_expired(seat), time=due_at)
    await audit.record(uow, command="ExpireInvitations", agency_id=agency_id, after={"seats": len(expired)})


async def look_for_idle_seats(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Warn of an agency's seats that have become idle, and take back those that stayed so: at each midnight, UTC.

    The time between the two counts from when the warning is really given, however late that is. While people cannot use
    their seats, nothing is held against them, nor a warning that they have had.
    """
    [deadline] = due
    agency_id = deadline.agency_id
    policy, _ = await policies.find_policy(uow.connection, agency_id)
    if policy.idle_days is None:
        return
    await _look_at_next_midnight(uow, agency_id, deadline.due_at)
    pool = await known_pool(uow, agency_id)
    if pool.state(deadline.due_at) is not PoolState.OPEN:
        await seats.forget_warnings(uow.connection, agency_id)
        return
    reclaimed = await seats.reclaim_idle(uow.connection, agency_id, deadline.due_at, uow.now)
    if reclaimed:
        await _take_back(uow, reclaimed, deadline.due_at)
    reclaim_at = _midnight_after(uow.now - _PUNCTUAL) + timedelta(days=policy.warning_days)
    last_use = deadline.due_at.date() - timedelta(days=policy.idle_days)
    for seat in await seats.warn_idle(uow.connection, agency_id, last_use, reclaim_at):
        uow.publish(publishing.seat_idle_warned(seat, policy.idle_days, reclaim_at), time=deadline.due_at)


async def _take_back(uow: UnitOfWork, idle: Sequence[Seat], at: datetime) -> None:
    agency_id = idle[0].agency_id
    await pools.use_seats(uow.connection, agency_id, -len(idle), limit_met=False)
    for seat in idle:
        uow.publish(publishing.seat_revoked(seat, SeatRevocationReason.INACTIVITY), time=at)
    for seat in idle:
        uow.publish(publishing.person_erased(seat), time=at)
    await audit.record(uow, command="ReclaimIdleSeats", agency_id=agency_id, after={"seats": len(idle)})


async def _look_at_next_midnight(uow: UnitOfWork, agency_id: str, after: datetime) -> None:
    await deadlines.schedule(uow, [Deadline(IDLE_SEATS, agency_id, agency_id, _midnight_after(after))])


def _midnight_after(instant: datetime) -> datetime:
    return datetime.combine(instant.date() + timedelta(days=1), time(), UTC)

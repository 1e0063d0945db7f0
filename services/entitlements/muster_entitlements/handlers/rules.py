"""What is agreed on for an agency's seats, and invitations that become void."""

from collections.abc import Sequence
from dataclasses import asdict

from muster_entitlements import publishing
from muster_entitlements.commands import ResizePool, SetSeatPolicy
from muster_entitlements.errors import CapBelowUse
from muster_entitlements.handlers.idle import look_at, midnight_after
from muster_entitlements.handlers.seats import known_pool
from muster_entitlements.replies import PoolReply, SeatPolicyReply
from muster_entitlements.repository import policies, pools, seats
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import PreconditionFailed
from muster_runtime.observability import audit
from muster_runtime.scheduling.deadlines import Deadline


async def resize_pool(uow: UnitOfWork, command: ResizePool) -> PoolReply:
    """Agree on another number of seats; the same number changes nothing. Raises PoolUnknown or CapBelowUse."""
    pool = await known_pool(uow, command.agency_id)
    if command.cap < pool.in_use:
        raise CapBelowUse(command.cap, pool.in_use)
    if command.cap != pool.cap:
        limit_met = pool.limit_met and command.cap == pool.in_use
        await pools.resize_pool(uow.connection, pool.agency_id, command.cap, limit_met=limit_met)
        uow.publish(publishing.seat_pool_resized(pool, command.cap))
    audit.record(
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
    forgetting = await policies.put_policy(uow.connection, pool.agency_id, command.policy, version + 1)
    if forgetting:
        look_at(uow, pool.agency_id, uow.now)
    elif command.policy.idle_days is not None:
        look_at(uow, pool.agency_id, midnight_after(uow.now))
    audit.record(
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
    audit.record(uow, command="ExpireInvitations", agency_id=agency_id, after={"seats": len(expired)})

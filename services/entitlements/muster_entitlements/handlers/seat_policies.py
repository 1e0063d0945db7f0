"""The command that sets a seat policy."""

from dataclasses import asdict

from muster_entitlements.commands import SetSeatPolicy
from muster_entitlements.handlers.idle import midnight_after, schedule_search
from muster_entitlements.handlers.lookups import known_pool
from muster_entitlements.replies import SeatPolicyReply
from muster_entitlements.repository import policies
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import PreconditionFailed
from muster_runtime.observability import audit


async def set_seat_policy(uow: UnitOfWork, command: SetSeatPolicy) -> SeatPolicyReply:
    """Set an agency's seat policy. Raises PoolUnknown or PreconditionFailed."""
    pool = await known_pool(uow, command.agency_id)
    previous, version = await policies.find_policy(uow.connection, pool.agency_id)
    if command.if_version not in (None, version):
        raise PreconditionFailed(f"the seat policy of {pool.agency_id} is at version {version}")
    deletes_warnings = await policies.save_policy(uow.connection, pool.agency_id, command.policy, version + 1)
    if deletes_warnings:
        schedule_search(uow, pool.agency_id, uow.now)
    elif command.policy.idle_days is not None:
        schedule_search(uow, pool.agency_id, midnight_after(uow.now))
    audit.record(
        uow,
        command="SetSeatPolicy",
        agency_id=pool.agency_id,
        before=asdict(previous),
        after=asdict(command.policy),
    )
    return SeatPolicyReply.of(command.policy, version + 1)

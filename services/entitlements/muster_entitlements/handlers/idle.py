"""Idle seats: warns their holders, then revokes the seats, in steps that do not grow with the number of seats."""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta

from muster_contracts.entitlements import SeatRevocationReason
from muster_entitlements import publishing
from muster_entitlements.domain.pools import PoolState
from muster_entitlements.domain.seats import Seat, SeatPolicy
from muster_entitlements.handlers.lookups import known_pool
from muster_entitlements.handlers.snapshots import erase_seats
from muster_entitlements.repository import idle, policies, pools
from muster_entitlements.repository.idle import Step
from muster_runtime.database import writes
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.observability import audit
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

IDLE_SEATS = "idle-seats"

# How many seats a step examines.
STEP_SEATS = 1_000

# A search this soon after midnight counts as one at midnight, and so do its warnings.
_PUNCTUAL = timedelta(minutes=1)


async def on_idle_seats_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Warn of an agency's idle seats, and revoke those that stayed idle after a warning, at each midnight, UTC.

    This is one step. Its deadline is immediately due again until all seats have been examined. The time from warning to
    revocation counts from the actual warning, however late that is. While the pool is not open, idle days and earlier
    warnings do not count. Neither do warnings from before a policy without idle days.
    """
    [deadline] = due
    agency_id = deadline.agency_id
    policy, _ = await policies.find_policy(uow.connection, agency_id)
    after, deletes_warnings = await policies.find_sweep(uow.connection, agency_id)
    step = await idle.find_step(uow.connection, agency_id, after, STEP_SEATS)
    pool = await known_pool(uow, agency_id)
    if policy.idle_days is None or deletes_warnings or pool.state(deadline.due_at) is not PoolState.OPEN:
        await idle.delete_warnings(uow.connection, step)
    else:
        await _search(uow, step, policy, policy.idle_days, deadline.due_at)
    await policies.save_sweep(uow.connection, agency_id, step.until)
    if step.until is not None:
        schedule_search(uow, agency_id, deadline.due_at)
    elif policy.idle_days is not None:
        schedule_search(uow, agency_id, midnight_after(deadline.due_at))


def schedule_search(uow: UnitOfWork, agency_id: str, instant: datetime) -> None:
    """Schedule the next step of the search for an agency's idle seats."""
    deadlines.schedule(uow, [Deadline(IDLE_SEATS, agency_id, agency_id, instant)])


def midnight_after(instant: datetime) -> datetime:
    """The next midnight, UTC."""
    return datetime.combine(instant.date() + timedelta(days=1), time(), UTC)


async def _search(uow: UnitOfWork, step: Step, policy: SeatPolicy, idle_days: int, due_at: datetime) -> None:
    reclaimed = await idle.save_reclaimed(uow.connection, step, due_at, uow.now)
    if reclaimed:
        await _revoke(uow, reclaimed, due_at)
    reclaim_at = midnight_after(uow.now - _PUNCTUAL) + timedelta(days=policy.warning_days)
    last_use = due_at.date() - timedelta(days=idle_days)
    for seat in await idle.save_warnings(uow.connection, step, last_use, reclaim_at):
        uow.publish(publishing.seat_idle_warned(seat, idle_days, reclaim_at), time=due_at)


async def _revoke(uow: UnitOfWork, seats: Sequence[Seat], at: datetime) -> None:
    agency_id = seats[0].agency_id
    await writes.execute(uow.connection, pools.save_seats_in_use(agency_id, -len(seats), limit_met=False))
    for seat in seats:
        uow.publish(publishing.seat_revoked(seat, SeatRevocationReason.INACTIVITY), time=at)
    for seat in seats:
        uow.publish(publishing.person_erased(seat), time=at)
    erase_seats(uow, agency_id, [seat.subject_ref for seat in seats])
    audit.record(uow, command="ReclaimIdleSeats", agency_id=agency_id, after={"seats": len(seats)})

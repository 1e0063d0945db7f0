"""Idle seats: their people are warned, and the seats taken back, in steps that do not grow with their number."""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta

from muster_contracts.entitlements import SeatRevocationReason
from muster_entitlements import publishing
from muster_entitlements.domain import PoolState, Seat, SeatPolicy
from muster_entitlements.handlers.seats import known_pool
from muster_entitlements.repository import idle, policies, pools
from muster_entitlements.repository.idle import Step
from muster_runtime.database import writes
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.observability import audit
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

IDLE_SEATS = "idle-seats"

# A step looks at so many seats.
STEP_SEATS = 1_000

# A look this soon after its midnight counts as made at it, and a warning as given then.
_PUNCTUAL = timedelta(minutes=1)


async def look_for_idle_seats(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Warn of an agency's seats that have become idle, and take back those that stayed so: at each midnight, UTC.

    One step; its deadline is due again at once until all seats were looked at. The time between warning and taking back
    counts from when the warning is really given, however late that is. While people cannot use their seats, nothing is
    held against them, nor a warning that they have had; nor after a policy by which no seat is idle.
    """
    [deadline] = due
    agency_id = deadline.agency_id
    policy, _ = await policies.find_policy(uow.connection, agency_id)
    after, forgetting = await policies.find_sweep(uow.connection, agency_id)
    step = await idle.find_step(uow.connection, agency_id, after, STEP_SEATS)
    pool = await known_pool(uow, agency_id)
    if policy.idle_days is None or forgetting or pool.state(deadline.due_at) is not PoolState.OPEN:
        await idle.forget_warnings(uow.connection, step)
    else:
        await _look(uow, step, policy, policy.idle_days, deadline.due_at)
    await policies.advance_sweep(uow.connection, agency_id, step.until)
    if step.until is not None:
        look_at(uow, agency_id, deadline.due_at)
    elif policy.idle_days is not None:
        look_at(uow, agency_id, midnight_after(deadline.due_at))


def look_at(uow: UnitOfWork, agency_id: str, instant: datetime) -> None:
    """Let an agency's seats be looked at, or be looked at further, at an instant."""
    deadlines.schedule(uow, [Deadline(IDLE_SEATS, agency_id, agency_id, instant)])


def midnight_after(instant: datetime) -> datetime:
    """The next midnight, UTC."""
    return datetime.combine(instant.date() + timedelta(days=1), time(), UTC)


async def _look(uow: UnitOfWork, step: Step, policy: SeatPolicy, idle_days: int, due_at: datetime) -> None:
    reclaimed = await idle.reclaim(uow.connection, step, due_at, uow.now)
    if reclaimed:
        await _take_back(uow, reclaimed, due_at)
    reclaim_at = midnight_after(uow.now - _PUNCTUAL) + timedelta(days=policy.warning_days)
    last_use = due_at.date() - timedelta(days=idle_days)
    for seat in await idle.warn(uow.connection, step, last_use, reclaim_at):
        uow.publish(publishing.seat_idle_warned(seat, idle_days, reclaim_at), time=due_at)


async def _take_back(uow: UnitOfWork, seats: Sequence[Seat], at: datetime) -> None:
    agency_id = seats[0].agency_id
    await writes.execute(uow.connection, pools.use_seats(agency_id, -len(seats), limit_met=False))
    for seat in seats:
        uow.publish(publishing.seat_revoked(seat, SeatRevocationReason.INACTIVITY), time=at)
    for seat in seats:
        uow.publish(publishing.person_erased(seat), time=at)
    audit.record(uow, command="ReclaimIdleSeats", agency_id=agency_id, after={"seats": len(seats)})

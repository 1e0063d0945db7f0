"""Publishes that an agency's seats are used up."""

from muster_entitlements import publishing
from muster_entitlements.domain.pools import Pool
from muster_entitlements.handlers.lookups import known_pool
from muster_entitlements.repository import pools
from muster_runtime.database import writes
from muster_runtime.database.transactions import UnitOfWork


async def report_limit_reached(uow: UnitOfWork, agency_id: str) -> None:
    """Publish that a seat was refused at the cap, if no seat is free and it has not been published yet.

    It runs in its own transaction: the refused command was rolled back, with everything that it published.
    """
    pool = await known_pool(uow, agency_id)
    if not pool.free:
        await publish_limit_reached(uow, pool, 1)


async def publish_limit_reached(uow: UnitOfWork, pool: Pool, refused: int) -> None:
    """Publish that seats were refused at the cap, once until a seat becomes free."""
    if not pool.limit_met:
        await writes.execute(uow.connection, pools.save_seats_in_use(pool.agency_id, 0, limit_met=True))
        uow.publish(publishing.seat_limit_reached(pool, refused))

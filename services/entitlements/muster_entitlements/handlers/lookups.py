"""Looks up what a command needs, and refuses the command if that does not exist."""

from muster_entitlements import queries
from muster_entitlements.domain.catalog import Feature
from muster_entitlements.domain.pools import Pool, Standing
from muster_entitlements.domain.seats import Seat
from muster_entitlements.errors import PoolUnknown, SeatUnknown
from muster_entitlements.repository import catalogs, pools, seats, windows
from muster_entitlements.repository.meters import find_feature
from muster_runtime.database.transactions import UnitOfWork


async def known_pool(uow: UnitOfWork, agency_id: str) -> Pool:
    """The agency's pool. Raises PoolUnknown."""
    return await queries.known_pool(uow.connection, agency_id)


async def known_feature(uow: UnitOfWork, pool: Pool, key: str) -> Feature:
    """A feature in the catalog version that the agency's window follows; without a window, in the newest version.

    Raises FeatureUnknown.
    """
    window = (await windows.list_windows(uow.connection, pool.agency_id, pool.enrollment_id)).get(key)
    if window is None:
        return (await catalogs.find_catalog(uow.connection, uow.now)).known(key)
    return await find_feature(uow.connection, key, window, uow.now)


async def known_pool_and_standing(uow: UnitOfWork, agency_id: str, subject_ref: str) -> tuple[Pool, Standing]:
    """The agency's pool, and what the person has in it. Raises PoolUnknown."""
    pool, standing = await pools.find_pool_and_standing(uow.connection, agency_id, subject_ref)
    if pool is None:
        raise PoolUnknown(agency_id)
    return pool, standing


async def known_seat(uow: UnitOfWork, agency_id: str, seat_id: str) -> Seat:
    """A seat of the agency. Raises SeatUnknown."""
    seat = await seats.find_seat(uow.connection, agency_id, seat_id)
    if seat is None:
        raise SeatUnknown(agency_id, seat_id)
    return seat

"""The read side: pools, windows, policies, and operations."""

from collections.abc import Callable
from datetime import datetime

from muster_entitlements.domain.as_of import AsOf
from muster_entitlements.domain.operations import Operation
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.windows import Window
from muster_entitlements.errors import PoolUnknown, WindowUnknown
from muster_entitlements.errors.files import OperationUnknown
from muster_entitlements.replies import (
    OperationReply,
    PoolReply,
    SeatPolicyReply,
    WindowPreviewReply,
    WindowReply,
)
from muster_entitlements.repository import history, operations, policies, pools
from muster_entitlements.repository.meters import find_feature
from muster_entitlements.repository.windows import COLUMNS, find_windows, to_window
from muster_runtime.database.transactions import Connection
from muster_runtime.pagination import Page


async def find_pool(connection: Connection, agency_id: str, now: datetime) -> PoolReply:
    """Raises PoolUnknown."""
    return PoolReply.of(await known_pool(connection, agency_id), now)


async def find_past_pool(connection: Connection, agency_id: str, as_of: AsOf) -> PoolReply:
    """An agency's pool as it was. Raises PoolUnknown."""
    pool = await history.find_pool(connection, agency_id, as_of)
    if pool is None:
        raise PoolUnknown(agency_id)
    return PoolReply.of(pool, as_of.at)


async def find_seat_policy(connection: Connection, agency_id: str) -> SeatPolicyReply:
    """An agency's policy; the default if it has set none."""
    return SeatPolicyReply.of(*await policies.find_policy(connection, agency_id))


async def list_windows(connection: Connection, agency_id: str, now: datetime) -> Page[WindowReply]:
    """All windows of an agency's current enrollment, by feature, on a single page: the catalog is short."""
    rows = await connection.fetch(
        f"""
        select {COLUMNS}
        from pool as p
        join feature_window as w on w.agency_id = p.agency_id and w.enrollment_id = p.enrollment_id
        where p.agency_id = $1
        order by w.feature
        """,  # noqa: S608
        agency_id,
    )
    return Page(items=[WindowReply.of(to_window(row), now) for row in rows], next=None)


async def list_past_windows(connection: Connection, agency_id: str, as_of: AsOf) -> Page[WindowReply]:
    """All windows of the enrollment that an agency had, by feature; none if it had not enrolled."""
    pool = await history.find_pool(connection, agency_id, as_of)
    if pool is None:
        return Page(items=[], next=None)
    windows = await history.list_windows(connection, agency_id, pool.enrollment_id, as_of)
    return Page(items=[WindowReply.of(window, as_of.at) for window in windows], next=None)


async def preview_change(
    connection: Connection,
    agency_id: str,
    window_id: str,
    change: Callable[[Window, Pool, datetime], Window],
    now: datetime,
) -> WindowPreviewReply:
    """What a decision would make of a window. Raises PoolUnknown, WindowUnknown, and what the decision raises."""
    pool = await known_pool(connection, agency_id)
    before = (await find_windows(connection, agency_id, [window_id])).get(window_id)
    if before is None or before.enrollment_id != pool.enrollment_id:
        raise WindowUnknown(agency_id, window_id)
    after = change(before, pool, now)
    return WindowPreviewReply.of(before, after, pool, await find_feature(connection, before.feature, before, now), now)


async def find_operation(connection: Connection, agency_id: str, operation_id: str, now: datetime) -> OperationReply:
    """Raises OperationUnknown."""
    return OperationReply.of(await _known_operation(connection, agency_id, operation_id), now)


async def count_results(connection: Connection, agency_id: str, operation_id: str) -> int:
    """The number of chunks that have results. Raises OperationUnknown."""
    return (await _known_operation(connection, agency_id, operation_id)).chunks_done


async def find_results(connection: Connection, agency_id: str, operation_id: str, number: int) -> bytes | None:
    """The results of a chunk's rows; None if it is not processed yet, or deleted."""
    results: bytes | None = await connection.fetchval(
        """
        select results from operation_chunk
        where agency_id = $1 and operation_id = $2 and number = $3
        """,
        agency_id,
        operation_id,
        number,
    )
    return results


async def known_pool(connection: Connection, agency_id: str) -> Pool:
    """Raises PoolUnknown."""
    pool = await pools.find_pool(connection, agency_id)
    if pool is None:
        raise PoolUnknown(agency_id)
    return pool


async def _known_operation(connection: Connection, agency_id: str, operation_id: str) -> Operation:
    operation = await operations.find_operation(connection, agency_id, operation_id)
    if operation is None:
        raise OperationUnknown(agency_id, operation_id)
    return operation

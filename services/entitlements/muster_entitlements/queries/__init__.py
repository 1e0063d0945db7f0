"""The read side: pools, windows, seats, checks, policies, and operations."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from datetime import datetime

from asyncpg import Record

from muster_entitlements.domain.catalog import is_key
from muster_entitlements.domain.checks import Question, Register, check, check_all
from muster_entitlements.domain.operations import Operation
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.seats import SeatState
from muster_entitlements.domain.windows import Window
from muster_entitlements.errors import OperationUnknown, PoolUnknown, SeatUnknown, WindowUnknown
from muster_entitlements.replies import (
    CheckReply,
    ChecksReply,
    OperationReply,
    PoolReply,
    SeatPolicyReply,
    SeatReply,
    WindowPreviewReply,
    WindowReply,
)
from muster_entitlements.repository import catalogs, operations, policies, pools
from muster_entitlements.repository.grants import list_standing, read_grants
from muster_entitlements.repository.seat_trials import find_begun
from muster_entitlements.repository.seats import find_states
from muster_entitlements.repository.windows import find_windows, to_window
from muster_runtime.database.transactions import Connection
from muster_runtime.errors import InvalidInput
from muster_runtime.pagination import Page, Pagination

# A seat of an earlier generation reads as revoked: its row waits to be revoked.
_SEAT = """
    select
        s.seat_id, s.subject_ref, s.assigned_at, s.activated_at, s.revoked_at,
        case when s.generation = p.generation then s.state else 'revoked' end as state,
        case when s.generation = p.generation then s.invited_until end as invited_until,
        case when s.generation = p.generation then s.email end as email,
        case when s.generation = p.generation then s.name end as name
    from seat as s
    join pool as p using (agency_id)
"""

_POOL_AND_WINDOW = """
    select
        p.agency_id, p.enrollment_id, p.starts_at, p.ends_at, p.suspended, p.withdrawn_at, p.ended,
        p.cap, p.in_use, p.limit_met, p.revision, p.generation, p.revoking, p.time_zone,
        w.window_id, w.feature, w.trial, w.mode, w.starts_at as opens_at, w.ends_at as closes_at,
        w.mode_after, w.monthly_quota_after, w.catalog_number, w.renewable,
        w.anchor, w.seat_days, w.ends_soon_days, w.grace_days, w.extended, w.ended_early, w.revision as window_revision
"""

_STANDING_GRANTS = """
    cross join lateral (
        select
            json_agg(json_build_object(
                'grant_id', grant_id, 'agency_id', agency_id, 'feature', feature, 'subject_ref', subject_ref,
                'mode', mode, 'monthly_quota', monthly_quota, 'starts_at', starts_at, 'ends_at', ends_at,
                'reason', reason
            )) as grants
        from entitlement_grant
        where
            agency_id = $1 and feature = $3 and (subject_ref = $2 or subject_ref is null)
            and revoked_at is null and (ends_at is null or ends_at > $4)
    ) as g
"""


async def find_pool(connection: Connection, agency_id: str, now: datetime) -> PoolReply:
    """Raises PoolUnknown."""
    pool = await pools.find_pool(connection, agency_id)
    if pool is None:
        raise PoolUnknown(agency_id)
    return PoolReply.of(pool, now)


async def find_seat_policy(connection: Connection, agency_id: str) -> SeatPolicyReply:
    """An agency's policy; the default if it has set none."""
    return SeatPolicyReply.of(*await policies.find_policy(connection, agency_id))


async def list_windows(connection: Connection, agency_id: str) -> Page[WindowReply]:
    """All windows of an agency's current enrollment, by feature: the catalog is short."""
    rows = await connection.fetch(
        """
        select
            w.window_id, w.agency_id, w.enrollment_id, w.feature, w.trial, w.mode,
            w.starts_at, w.ends_at, w.mode_after, w.monthly_quota_after, w.catalog_number, w.renewable,
            w.anchor, w.seat_days, w.ends_soon_days, w.grace_days, w.extended, w.ended_early, w.revision
        from pool as p
        join feature_window as w on w.agency_id = p.agency_id and w.enrollment_id = p.enrollment_id
        where p.agency_id = $1
        order by w.feature
        """,
        agency_id,
    )
    return Page(items=[WindowReply.of(to_window(row)) for row in rows], next=None)


async def preview_change(
    connection: Connection,
    agency_id: str,
    window_id: str,
    change: Callable[[Window, Pool, datetime], Window],
    now: datetime,
) -> WindowPreviewReply:
    """What a decision would make of a window. Raises PoolUnknown, WindowUnknown, and what the decision raises."""
    pool = await pools.find_pool(connection, agency_id)
    if pool is None:
        raise PoolUnknown(agency_id)
    before = (await find_windows(connection, agency_id, [window_id])).get(window_id)
    if before is None or before.enrollment_id != pool.enrollment_id:
        raise WindowUnknown(agency_id, window_id)
    return WindowPreviewReply.of(before, change(before, pool, now), pool, now)


async def list_seats(connection: Connection, agency_id: str, page: Pagination) -> Page[SeatReply]:
    """Seats of an agency, held and revoked, oldest first."""
    rows = await connection.fetch(
        f"""
        {_SEAT}
        where agency_id = $1 and seat_id > $2
        order by seat_id
        limit $3
        """,
        agency_id,
        page.after or "",
        page.rows,
    )
    return page.make([SeatReply(**row) for row in rows], key=lambda seat: seat.seat_id)


async def find_seat(connection: Connection, agency_id: str, seat_id: str) -> SeatReply:
    """A seat with its holder. Raises SeatUnknown."""
    row = await connection.fetchrow(f"{_SEAT} where agency_id = $1 and seat_id = $2", agency_id, seat_id)
    if row is None:
        raise SeatUnknown(agency_id, seat_id)
    return SeatReply(**row)


async def find_check(
    connection: Connection, agency_id: str, subject_ref: str, feature: str | None, now: datetime
) -> CheckReply:
    """Whether a person may use a feature; without a feature, whether they hold a seat that can be used.

    Raises FeatureUnknown.
    """
    return CheckReply.of(check(await find_question(connection, agency_id, subject_ref, feature, now), now))


async def find_checks(
    connection: Connection, agency_id: str, pairs: Sequence[tuple[str, str | None]], now: datetime
) -> ChecksReply:
    """The checks of these pairs of subject and feature, in order. Raises InvalidInput, which names the pair."""
    register = await _find_register(connection, agency_id, (subject_ref for subject_ref, _ in pairs), now)
    await _require_known(connection, register, [feature for _, feature in pairs], now)
    answers = check_all(register, pairs, now)
    replies = {answer: CheckReply.of(answer) for answer in set(answers)}
    return ChecksReply(answers=[replies[answer] for answer in answers])


async def find_question(
    connection: Connection, agency_id: str, subject_ref: str, feature: str | None, now: datetime
) -> Question:
    """All that a check depends on, in one statement of four index lookups.

    Only for a feature without a window it also asks the catalog. Raises FeatureUnknown.
    """
    if feature is not None and not is_key(feature):
        (await catalogs.find_catalog(connection, now)).known(feature)
    row = await connection.fetchrow(
        f"""
        {_POOL_AND_WINDOW}, s.state as seat_state, s.idle_since, g.grants,
            coalesce(s.trial_began_at, s.activated_at) as began_at
        from pool as p
        left join seat as s
            on s.agency_id = p.agency_id and s.subject_ref = $2 and s.state <> 'revoked'
            and s.generation = p.generation
        left join feature_window as w
            on w.agency_id = p.agency_id and w.enrollment_id = p.enrollment_id and w.feature = $3
        {_STANDING_GRANTS}
        where p.agency_id = $1
        """,
        agency_id,
        subject_ref,
        feature,
        now,
    )
    if feature is not None and (row is None or (row["window_id"] is None and row["grants"] is None)):
        (await catalogs.find_catalog(connection, now)).known(feature)
    if row is None:
        return Question(None, None, feature, None)
    return Question(
        pool=_checked_pool(row),
        seat=SeatState(row["seat_state"]) if row["seat_state"] else None,
        began_at=row["began_at"],
        used_on=row["idle_since"] if row["seat_state"] == SeatState.ACTIVE else None,
        feature=feature,
        window=_checked_window(row) if row["window_id"] else None,
        grants=read_grants(row["grants"]),
    )


async def _find_register(
    connection: Connection, agency_id: str, subject_refs: Iterable[str], now: datetime
) -> Register:
    """All that checks of these people depend on.

    Pool and windows are read first: if the agency's entitlements change in between, the answers have the older
    revision, and hold only until a caller sees the newer one.
    """
    rows = await connection.fetch(
        f"""
        {_POOL_AND_WINDOW}
        from pool as p
        left join feature_window as w
            on w.agency_id = p.agency_id and w.enrollment_id = p.enrollment_id
        where p.agency_id = $1
        """,
        agency_id,
    )
    windows = [_checked_window(row) for row in rows if row["window_id"]]
    people = set(subject_refs)
    of_seats = any(window.seat_trial is not None for window in windows)
    return Register(
        pool=_checked_pool(rows[0]) if rows else None,
        windows={window.feature: window for window in windows},
        seats=await find_states(connection, agency_id, people),
        grants=await list_standing(connection, agency_id, people, now),
        begun=await find_begun(connection, agency_id, people) if of_seats else {},
    )


async def _require_known(
    connection: Connection, register: Register, features: Sequence[str | None], now: datetime
) -> None:
    """Raise InvalidInput for a feature that has no window and is not in the catalog."""
    if all(feature is None or feature in register.windows for feature in features):
        return
    catalog = await catalogs.find_catalog(connection, now)
    for number, feature in enumerate(features):
        if feature is None or feature in register.windows or feature in catalog.features:
            continue
        nearest = catalog.nearest(feature)
        hint = f"; the nearest are {', '.join(nearest)}" if nearest else ""
        raise InvalidInput(f"pairs.{number}.feature", feature, f"must be a feature of the catalog{hint}")


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


async def _known_operation(connection: Connection, agency_id: str, operation_id: str) -> Operation:
    operation = await operations.find_operation(connection, agency_id, operation_id)
    if operation is None:
        raise OperationUnknown(agency_id, operation_id)
    return operation


def _checked_pool(row: Record) -> Pool:
    return Pool(**{field.name: row[field.name] for field in fields(Pool)})


def _checked_window(row: Record) -> Window:
    columns = {field.name: row[field.name] for field in fields(Window)}
    return to_window(
        columns | {"starts_at": row["opens_at"], "ends_at": row["closes_at"], "revision": row["window_revision"]}
    )

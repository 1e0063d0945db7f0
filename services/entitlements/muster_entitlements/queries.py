"""The read side."""

from collections.abc import Iterable
from dataclasses import fields

from asyncpg import Record

from muster_entitlements.checks import Question, Register
from muster_entitlements.domain import Pool, SeatState, Window
from muster_entitlements.replies import SeatReply
from muster_entitlements.repository.seats import find_states
from muster_entitlements.repository.windows import to_window
from muster_runtime.database.transactions import Connection

# A seat of an earlier generation is as good as revoked: its row only waits for its turn.
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
        p.cap, p.in_use, p.limit_met, p.revision, p.generation, p.revoking,
        w.window_id, w.feature, w.trial, w.mode, w.starts_at as opens_at, w.ends_at as closes_at,
        w.mode_after, w.monthly_quota_after
"""


async def list_windows(connection: Connection, agency_id: str) -> list[Window]:
    """The windows of an agency's present enrollment, by feature."""
    rows = await connection.fetch(
        """
        select
            w.window_id, w.agency_id, w.enrollment_id, w.feature, w.trial, w.mode,
            w.starts_at, w.ends_at, w.mode_after, w.monthly_quota_after
        from pool as p
        join feature_window as w on w.agency_id = p.agency_id and w.enrollment_id = p.enrollment_id
        where p.agency_id = $1
        order by w.feature
        """,
        agency_id,
    )
    return [to_window(row) for row in rows]


async def list_seats(connection: Connection, agency_id: str, after: str | None, limit: int) -> list[SeatReply]:
    """Seats of an agency, held and revoked, by their ids: those grow with time."""
    rows = await connection.fetch(
        f"""
        {_SEAT}
        where agency_id = $1 and seat_id > $2
        order by seat_id
        limit $3
        """,
        agency_id,
        after or "",
        limit,
    )
    return [SeatReply(**row) for row in rows]


async def find_seat(connection: Connection, agency_id: str, seat_id: str) -> SeatReply | None:
    """A seat with its holder."""
    row = await connection.fetchrow(f"{_SEAT} where agency_id = $1 and seat_id = $2", agency_id, seat_id)
    return SeatReply(**row) if row else None


async def find_question(connection: Connection, agency_id: str, subject_ref: str, feature: str | None) -> Question:
    """All that answers a check, in one statement of three index look-ups."""
    row = await connection.fetchrow(
        f"""
        {_POOL_AND_WINDOW}, s.state as seat_state, s.idle_since
        from pool as p
        left join seat as s
            on s.agency_id = p.agency_id and s.subject_ref = $2 and s.state <> 'revoked'
            and s.generation = p.generation
        left join feature_window as w
            on w.agency_id = p.agency_id and w.enrollment_id = p.enrollment_id and w.feature = $3
        where p.agency_id = $1
        """,
        agency_id,
        subject_ref,
        feature,
    )
    if row is None:
        return Question(None, None, feature, None)
    return Question(
        pool=_checked_pool(row),
        seat=SeatState(row["seat_state"]) if row["seat_state"] else None,
        used_on=row["idle_since"] if row["seat_state"] == SeatState.ACTIVE else None,
        feature=feature,
        window=_checked_window(row) if row["window_id"] else None,
    )


async def find_register(connection: Connection, agency_id: str, subject_refs: Iterable[str]) -> Register:
    """All that answers checks of these people.

    Pool and windows are read first: should the agency's entitlements change then, the answers bear the older
    revision, and hold only until the newer one is seen.
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
    return Register(
        pool=_checked_pool(rows[0]) if rows else None,
        windows={window.feature: window for window in windows},
        seats=await find_states(connection, agency_id, set(subject_refs)),
    )


def _checked_pool(row: Record) -> Pool:
    return Pool(**{field.name: row[field.name] for field in fields(Pool)})


def _checked_window(row: Record) -> Window:
    columns = {field.name: row[field.name] for field in fields(Window)}
    return to_window(columns | {"starts_at": row["opens_at"], "ends_at": row["closes_at"]})

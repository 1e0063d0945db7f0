"""What pools, windows, seats, and grants were: their versions, each from when until when it was recorded."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from muster_entitlements.domain.as_of import AsOf
from muster_entitlements.domain.grants import Grant
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.seats import SeatState
from muster_entitlements.domain.windows import Window
from muster_entitlements.repository.grants import to_grant
from muster_entitlements.repository.windows import COLUMNS, to_window
from muster_runtime.database.transactions import Connection

# The first version that ends later, which is the present one if none ended later.
_PAST_SEAT = """
    select
        s.seat_id, v.subject_ref, v.assigned_at, v.activated_at, v.reason,
        case when v.generation = $2 then v.state else 'revoked' end as state,
        case when v.generation = $2 then v.invited_until end as invited_until,
        case when v.state = 'revoked' then s.revoked_at end as revoked_at
    from seat as s
    cross join lateral (
        select *
        from (
            (
                select
                    recorded_until, subject_ref, state, reason, generation, assigned_at, activated_at, invited_until
                from seat_history as h
                where h.agency_id = s.agency_id and h.seat_id = s.seat_id and h.recorded_until > $3
                order by h.recorded_until
                limit 1
            )
            union all
            select
                'infinity', s.subject_ref, s.state, s.reason, s.generation, s.assigned_at, s.activated_at,
                s.invited_until
        ) as versions
        order by recorded_until
        limit 1
    ) as v
"""


@dataclass(frozen=True, slots=True)
class PastSeat:
    """The state of a person's seat, and when its trial began."""

    state: SeatState
    began_at: datetime | None


async def find_pool(connection: Connection, agency_id: str, as_of: AsOf) -> Pool | None:
    """An agency's pool; None if the agency was not known to be enrolled."""
    row = await connection.fetchrow(
        """
        select
            agency_id, enrollment_id, starts_at, ends_at, suspended, withdrawn_at, ended,
            cap, in_use, limit_met, revision, generation, revoking, time_zone
        from pool
        where agency_id = $1 and coalesce(recorded_from, '-infinity') <= $2
        union all
        select
            agency_id, enrollment_id, starts_at, ends_at, suspended, withdrawn_at, ended,
            cap, in_use, limit_met, revision, generation, revoking, time_zone
        from pool_history
        where agency_id = $1 and coalesce(recorded_from, '-infinity') <= $2 and recorded_until > $2
        """,
        agency_id,
        as_of.version_at,
    )
    return Pool(**row) if row else None


async def list_windows(connection: Connection, agency_id: str, enrollment_id: str, as_of: AsOf) -> list[Window]:
    """The windows of an enrollment, by feature, with the starts and ends that are known of them."""
    rows = await connection.fetch(
        f"""
        with version as (
            select
                {COLUMNS},
                coalesce(w.recorded_from, '-infinity') as recorded_from, 'infinity'::timestamptz as recorded_until
            from feature_window as w
            where w.agency_id = $1 and w.enrollment_id = $2
            union all
            select {COLUMNS}, coalesce(w.recorded_from, '-infinity'), w.recorded_until
            from feature_window_history as w
            where w.agency_id = $1 and w.enrollment_id = $2
        )

        select
            v.window_id, v.agency_id, v.enrollment_id, v.feature, v.trial, v.mode,
            known.starts_at, known.ends_at, v.mode_after, v.monthly_quota_after, v.catalog_number, v.renewable,
            v.anchor, v.seat_days, v.ends_soon_days, v.grace_days, known.extended, known.ended_early, known.revision
        from version as v
        cross join lateral (
            select starts_at, ends_at, extended, ended_early, revision
            from version as later
            where later.window_id = v.window_id and later.recorded_from <= $4
            order by later.recorded_from desc
            limit 1
        ) as known
        where v.recorded_from <= $3 and v.recorded_until > $3
        order by v.feature
        """,  # noqa: S608
        agency_id,
        enrollment_id,
        as_of.version_at,
        as_of.recorded_at,
    )
    return [to_window(row) for row in rows]


async def find_seat(connection: Connection, pool: Pool, subject_ref: str, as_of: AsOf) -> PastSeat | None:
    """The seat that a person held, or that was kept for them; `pool` is as it was."""
    row = await connection.fetchrow(
        """
        select state, coalesce(trial_began_at, activated_at) as began_at
        from seat_history
        where
            agency_id = $1 and subject_ref = $2 and recorded_from <= $4 and recorded_until > $4
            and state <> 'revoked' and generation = $3
        union all
        select s.state, coalesce(s.trial_began_at, s.activated_at)
        from seat as s
        where
            s.agency_id = $1 and s.subject_ref = $2 and s.state <> 'revoked' and s.generation = $3
            and s.assigned_at <= $4
            and not exists (
                select
                from seat_history as h
                where h.agency_id = s.agency_id and h.seat_id = s.seat_id and h.recorded_until > $4
            )
        """,
        pool.agency_id,
        subject_ref,
        pool.generation,
        as_of.version_at,
    )
    return PastSeat(SeatState(row["state"]), row["began_at"]) if row else None


async def list_grants(
    connection: Connection, agency_id: str, as_of: AsOf, subject_ref: str, feature: str
) -> list[Grant]:
    """The grants of a feature to an agency and a person that held at an instant or later."""
    rows = await connection.fetch(
        """
        select grant_id, agency_id, feature, subject_ref, mode, monthly_quota, starts_at, ends_at, reason
        from entitlement_grant
        where
            agency_id = $1 and feature = $2 and (subject_ref = $3 or subject_ref is null)
            and granted_at <= $4 and (revoked_at is null or revoked_at > $4) and (ends_at is null or ends_at > $5)
        order by grant_id
        """,
        agency_id,
        feature,
        subject_ref,
        as_of.version_at,
        as_of.at,
    )
    return [to_grant(row) for row in rows]


async def list_recorded_grants(
    connection: Connection, agency_id: str, recorded_at: datetime, after: str, limit: int
) -> list[Grant]:
    """Grants of an agency as they were recorded at an instant, oldest first."""
    rows = await connection.fetch(
        """
        select
            grant_id, agency_id, feature, subject_ref, mode, monthly_quota, starts_at, ends_at, reason,
            case when revoked_at <= $2 then revoked_at end as revoked_at
        from entitlement_grant
        where agency_id = $1 and granted_at <= $2 and grant_id > $3
        order by grant_id
        limit $4
        """,
        agency_id,
        recorded_at,
        after,
        limit,
    )
    return [to_grant(row) for row in rows]


async def list_seats(
    connection: Connection, pool: Pool, as_of: AsOf, after: str, until: str, limit: int
) -> list[Mapping[str, Any]]:
    """The seats that there were, oldest first; `pool` is as it was. Seats from the ID `until` on came later."""
    rows: list[Mapping[str, Any]] = await connection.fetch(
        f"""
        {_PAST_SEAT}
        where s.agency_id = $1 and s.seat_id > $4 and s.seat_id < $5 and v.assigned_at <= $3
        order by s.seat_id
        limit $6
        """,
        pool.agency_id,
        pool.generation,
        as_of.version_at,
        after,
        until,
        limit,
    )
    return rows


async def find_seat_by_id(connection: Connection, pool: Pool, seat_id: str, as_of: AsOf) -> Mapping[str, Any] | None:
    """A seat as it was; `pool` is as it was."""
    row: Mapping[str, Any] | None = await connection.fetchrow(
        f"{_PAST_SEAT} where s.agency_id = $1 and s.seat_id = $4 and v.assigned_at <= $3",
        pool.agency_id,
        pool.generation,
        as_of.version_at,
        seat_id,
    )
    return row

"""The past of pools, windows, seats, and grants: versions, each recorded from one instant until another."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from muster_entitlements.domain.as_of import AsOf
from muster_entitlements.domain.grants import Grant
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.seats import HeldSeat, SeatState
from muster_entitlements.domain.windows import Window
from muster_entitlements.repository import pools
from muster_entitlements.repository.grants import to_grant
from muster_entitlements.repository.purge import find_purged_before
from muster_entitlements.repository.windows import COLUMNS, to_window
from muster_runtime.database.transactions import Connection

# When the agency withdrew from the enrollment of a pool's version, as far as was known at $3. A withdrawal that was
# read late is in a later version, but counts from its own instant on, like the ends of windows. If the next enrollment
# was read together with the withdrawal, that version lasted no time.
_WITHDRAWN_AT = """
    coalesce(
        p.withdrawn_at,
        (
            select min(k.withdrawn_at)
            from (
                select agency_id, enrollment_id, withdrawn_at, recorded_from from pool
                union all
                select agency_id, enrollment_id, withdrawn_at, recorded_from
                from pool_history
                where withdrawn_at is not null
            ) as k
            where
                k.agency_id = p.agency_id and k.enrollment_id = p.enrollment_id and k.withdrawn_at <= $4
                and coalesce(k.recorded_from, '-infinity') <= $3
        )
    ) as withdrawn_at
"""
_POOL_COLUMNS = pools.COLUMNS.replace("p.withdrawn_at", _WITHDRAWN_AT)

# The first version that ended after the instant, or the current one if there is none.
_PAST_SEAT = """
    select
        s.seat_id, s.unit, v.subject_ref, v.assigned_at, v.activated_at, v.reason,
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


async def find_pools(connection: Connection, agency_ids: Iterable[str], as_of: AsOf) -> dict[str, Pool]:
    """The pools of agencies, by agency; none for an agency that was not known to be enrolled.

    Call it before anything else of the past is read, in the same database snapshot: old versions are deleted meanwhile.
    Raises InvalidInput for an instant whose versions may be deleted.
    """
    as_of.require_kept(await find_purged_before(connection))
    rows = await connection.fetch(
        f"""
        select {_POOL_COLUMNS}
        from pool as p
        where p.agency_id = any($1::text[]) and coalesce(p.recorded_from, '-infinity') <= $2
        union all
        select {_POOL_COLUMNS}
        from pool_history as p
        where
            p.agency_id = any($1::text[]) and coalesce(p.recorded_from, '-infinity') <= $2 and p.recorded_until > $2
        """,  # noqa: S608
        list(agency_ids),
        as_of.version_at,
        as_of.recorded_at,
        as_of.at,
    )
    return {row["agency_id"]: Pool(**row) for row in rows}


async def find_pool(connection: Connection, agency_id: str, as_of: AsOf) -> Pool | None:
    """find_pools for one agency."""
    return (await find_pools(connection, [agency_id], as_of)).get(agency_id)


async def list_windows(connection: Connection, agency_id: str, enrollment_id: str, as_of: AsOf) -> list[Window]:
    """The windows of an enrollment, by feature, with their starts and ends as known at `recorded_at`."""
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
            v.anchor, v.seat_days, v.ends_soon_days, v.grace_days, known.extended, known.ended_early,
            known.start_corrected, known.revision
        from version as v
        cross join lateral (
            select starts_at, ends_at, extended, ended_early, start_corrected, revision
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


async def find_seats(
    connection: Connection, pool: Pool, subject_refs: Iterable[str], as_of: AsOf
) -> dict[str, HeldSeat]:
    """The seats that people held, or that were kept for them, by subject. `pool` is the pool of that time."""
    rows = await connection.fetch(
        """
        select subject_ref, state, coalesce(trial_began_at, activated_at) as began_at
        from seat_history
        where
            agency_id = $1 and subject_ref = any(string_to_array($2, E'\n')) and recorded_from <= $4
            and recorded_until > $4 and state <> 'revoked' and generation = $3
        union all
        select s.subject_ref, s.state, coalesce(s.trial_began_at, s.activated_at)
        from seat as s
        where
            s.agency_id = $1 and s.subject_ref = any(string_to_array($2, E'\n')) and s.state <> 'revoked'
            and s.generation = $3 and coalesce(s.recorded_from, s.assigned_at) <= $4
        """,
        pool.agency_id,
        "\n".join(subject_refs),
        pool.generation,
        as_of.version_at,
    )
    return {row["subject_ref"]: HeldSeat(SeatState(row["state"]), row["began_at"]) for row in rows}


async def list_grants(connection: Connection, agency_id: str, subject_refs: Iterable[str], as_of: AsOf) -> list[Grant]:
    """The grants to an agency and to people that were in force at an instant or later."""
    rows = await connection.fetch(
        """
        select grant_id, agency_id, feature, subject_ref, mode, monthly_quota, starts_at, ends_at, reason
        from entitlement_grant
        where
            agency_id = $1 and (subject_ref is null or subject_ref = any($2::text[]))
            and granted_at <= $3 and (revoked_at is null or revoked_at > $3) and (ends_at is null or ends_at > $4)
        order by grant_id
        """,
        agency_id,
        list(subject_refs),
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
    """The seats of a past instant, oldest first. `pool` is the pool of that time. IDs from `until` on are newer."""
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
    """A seat as it was. `pool` is the pool of that time."""
    row: Mapping[str, Any] | None = await connection.fetchrow(
        f"{_PAST_SEAT} where s.agency_id = $1 and s.seat_id = $4 and v.assigned_at <= $3",
        pool.agency_id,
        pool.generation,
        as_of.version_at,
        seat_id,
    )
    return row


async def count_seats(connection: Connection, pool: Pool, as_of: AsOf) -> dict[str, int]:
    """How many seats there were in each state. `pool` is the pool of that time."""
    rows = await connection.fetch(
        """
        with version as (
            select state, generation
            from seat
            where agency_id = $1 and coalesce(recorded_from, assigned_at) <= $3
            union all
            select state, generation
            from seat_history
            where agency_id = $1 and recorded_from <= $3 and recorded_until > $3
        )

        select case when generation = $2 then state else 'revoked' end as state, count(*) as seats
        from version
        group by 1
        """,
        pool.agency_id,
        pool.generation,
        as_of.version_at,
    )
    return {row["state"]: row["seats"] for row in rows}

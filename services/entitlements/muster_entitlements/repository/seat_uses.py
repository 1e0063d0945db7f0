"""What people's use of features changes in their seats."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from muster_entitlements.domain.seats import Seat, SeatState
from muster_runtime.database.array_literals import array
from muster_runtime.database.connections import Connection

# An agency, a feature, and a person who uses it.
FeatureUser = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class SeatUse:
    """The use of a feature by the person of a seat, not before the second in which the seat was assigned.

    `first`: until now, the person had not used the feature with this seat. `activates`: the seat is assigned, in an
    open pool, so its use activates it.
    """

    seat: Seat
    feature: str
    generation: int
    assigned_at: datetime
    first: bool
    activates: bool

    @property
    def user(self) -> FeatureUser:
        """The agency, the feature, and the person."""
        return self.seat.agency_id, self.feature, self.seat.subject_ref


async def save_last_uses(connection: Connection, last: Mapping[FeatureUser, datetime], now: datetime) -> list[SeatUse]:
    """Store the days (UTC) on which people last used their active seats.

    Returns first uses and those that activate a seat, in order of the seats' IDs; the caller stores both. `last` is
    when each person last used each feature, of which whole seconds count.
    """
    agencies, features, subjects = zip(*last, strict=True)
    rows = await connection.fetch(
        """
        with changed as (
            select *
            from (
                select
                    s.agency_id, s.seat_id, s.subject_ref, s.state, s.activated_at is not null as used,
                    u.feature, s.generation, s.assigned_at, u.day,
                    s.state = 'active' and s.idle_since < u.day as newer,
                    date_trunc('second', s.assigned_at) <= u.used_at
                    and u.feature <> all(coalesce(s.used_features, '{}')) as first,
                    date_trunc('second', s.assigned_at) <= u.used_at
                    and s.state = 'assigned' and not p.suspended and p.starts_at <= $5 and p.ends_at > $5 as activates
                from (
                    select agency_id, feature, subject_ref, used_at, (used_at at time zone 'UTC')::date as day
                    from (
                        select agency_id, feature, subject_ref, to_timestamp(used_at) as used_at
                        from unnest($1::text::text[], $2::text::text[], $3::text::text[], $4::text::bigint[])
                            as u (agency_id, feature, subject_ref, used_at)
                    ) as u
                ) as u
                join pool as p on p.agency_id = u.agency_id
                join seat as s
                    on s.agency_id = u.agency_id and s.subject_ref = u.subject_ref and s.generation = p.generation
                where s.state <> 'revoked'
            ) as s
            where newer or first or activates
        ),

        marked as (
            update seat as s
            set idle_since = c.day, idle_reclaim_at = null
            from (select agency_id, seat_id, max(day) as day from changed where newer group by agency_id, seat_id) as c
            where s.agency_id = c.agency_id and s.seat_id = c.seat_id
        )

        select agency_id, seat_id, subject_ref, state, used, feature, generation, assigned_at, first, activates
        from changed
        where first or activates
        order by seat_id, feature
        """,
        array(agencies),
        array(features),
        array(subjects),
        array(int(at.timestamp()) for at in last.values()),
        now,
    )
    return [
        SeatUse(Seat(agency_id, seat_id, subject_ref, SeatState(state), used), *rest)
        for agency_id, seat_id, subject_ref, state, used, *rest in rows
    ]

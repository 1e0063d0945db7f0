"""Counters of adoption: by day, and of the people who have used a feature."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from muster_entitlements.domain.adoption import Adoption
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.quotas import Sum
from muster_runtime.database.connections import Connection
from muster_runtime.database.writes import Write

# An agency, a feature, and a day.
Day = tuple[str, str, date]


@dataclass(slots=True)
class Gain:
    """What is added to a day's counters."""

    active: int = 0
    active_7_days: int = 0
    active_28_days: int = 0
    first_uses: int = 0
    first_use_days: int = 0


async def find_used_days(connection: Connection, totals: Sequence[Sum], since: datetime) -> list[Sum]:
    """The sums of the same people and features in the periods that began since an instant, to read their days."""
    rows = await connection.fetch(
        """
        select s.agency_id, s.feature, s.subject_ref, s.starts_at, s.ends_at, s.days
        from (
            select distinct * from unnest($1::text[], $2::text[], $3::text[]) as u (agency_id, feature, subject_ref)
        ) as u
        join usage_sum as s using (agency_id, feature, subject_ref)
        where s.starts_at >= $4
        """,
        [total.agency_id for total in totals],
        [total.feature for total in totals],
        [total.subject_ref for total in totals],
        since,
    )
    return [Sum(**row) for row in rows]


def save_used_features(features: Mapping[tuple[str, str], Collection[str]]) -> Write:
    """Add to the features that the holders of seats have used; `features` is by agency and seat ID."""
    rows = [(agency_id, seat_id, feature) for (agency_id, seat_id), used in features.items() for feature in used]
    return (
        """
        marked_adopters as (
            update seat as s
            set used_features = s.used_features || u.features
            from (
                select agency_id, seat_id, array_agg(feature) as features
                from unnest($1::text[], $2::text[], $3::text[]) as u (agency_id, seat_id, feature)
                group by agency_id, seat_id
            ) as u
            where s.agency_id = u.agency_id and s.seat_id = u.seat_id
        )
        """,
        [list(column) for column in zip(*rows, strict=True)],
    )


def add_adopters(people: Counter[tuple[str, str, int]]) -> Write:
    """Count people who have used a feature for the first time, by agency, feature, and generation."""
    return (
        """
        counted_adopters as (
            insert into adopter as a (agency_id, feature, generation, people)
            select * from unnest($1::text[], $2::text[], $3::integer[], $4::integer[])
            on conflict (agency_id, feature, generation) do update set people = a.people + excluded.people
        )
        """,
        [*(list(column) for column in zip(*people, strict=True)), list(people.values())],
    )


def add_gains(gains: Mapping[Day, Gain]) -> Write:
    """Add to the counters of days."""
    return (
        """
        gained_adoption as (
            insert into adoption_day as d (
                agency_id, feature, day, active, active_7_days, active_28_days, first_uses, first_use_days
            )
            select *
            from unnest(
                $1::text[], $2::text[], $3::date[],
                $4::integer[], $5::integer[], $6::integer[], $7::integer[], $8::integer[]
            )
            on conflict (agency_id, feature, day) do update set
                active = d.active + excluded.active,
                active_7_days = d.active_7_days + excluded.active_7_days,
                active_28_days = d.active_28_days + excluded.active_28_days,
                first_uses = d.first_uses + excluded.first_uses,
                first_use_days = d.first_use_days + excluded.first_use_days
        )
        """,
        [
            *(list(column) for column in zip(*gains, strict=True)),
            [gain.active for gain in gains.values()],
            [gain.active_7_days for gain in gains.values()],
            [gain.active_28_days for gain in gains.values()],
            [gain.first_uses for gain in gains.values()],
            [gain.first_use_days for gain in gains.values()],
        ],
    )


async def find_adoption(
    connection: Connection, pool: Pool, day: date, features: Collection[str]
) -> dict[str, Adoption]:
    """The adoption of these features, and of any others that were used, on a day, by feature, with `never_used`."""
    rows = await connection.fetch(
        """
        select feature, day, active, active_7_days, active_28_days, first_uses, first_use_days
        from adoption_day
        where agency_id = $1 and day = $2
        """,
        pool.agency_id,
        day,
    )
    adopters = await connection.fetch(
        "select feature, people from adopter where agency_id = $1 and generation = $2",
        pool.agency_id,
        pool.generation,
    )
    found = {row["feature"]: row for row in rows}
    people = {row["feature"]: row["people"] for row in adopters}
    return {
        feature: Adoption(
            **(found.get(feature) or {"feature": feature, "day": day}),
            never_used=max(pool.in_use - people.get(feature, 0), 0),
        )
        for feature in sorted({*features, *found, *people})
    }


async def list_days(
    connection: Connection, agency_id: str, first: date, last: date, after: tuple[str, date], limit: int
) -> list[Adoption]:
    """The adoption on each day within [first, last], in order of feature and day, beginning after `after`."""
    rows = await connection.fetch(
        """
        select feature, day, active, active_7_days, active_28_days, first_uses, first_use_days
        from adoption_day
        where agency_id = $1 and day between $2 and $3 and (feature, day) > ($4, $5)
        order by feature, day
        limit $6
        """,
        agency_id,
        first,
        last,
        *after,
        limit,
    )
    return [Adoption(**row) for row in rows]


async def find_oldest_day(connection: Connection) -> datetime | None:
    """The start of the oldest counted day, as if it were a day in UTC; None if there is none."""
    oldest: date | None = await connection.fetchval("select min(day) from adoption_day")
    return None if oldest is None else datetime.combine(oldest, time(), UTC)


async def delete_old_days(connection: Connection, before: datetime, limit: int) -> int:
    """Delete at most `limit` rows of days that started by `before`, oldest first; returns how many."""
    deleted: int = await connection.fetchval(
        """
        with deleted as (
            delete from adoption_day
            where ctid = any(array(select ctid from adoption_day where day <= $1 order by day limit $2))
            returning 1
        )

        select count(*) from deleted
        """,
        before.date(),
        limit,
    )
    return deleted

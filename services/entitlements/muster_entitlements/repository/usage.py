"""Counted use: the events that were counted, and the sums."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime

from muster_entitlements.domain.catalog import Catalog, packaged_catalog
from muster_entitlements.domain.quotas import Limit, Period, Sum, Used, use_of, whose
from muster_entitlements.domain.usage import Identity, Use
from muster_entitlements.repository import catalogs, quota_grants
from muster_runtime.database.array_literals import array, instants
from muster_runtime.database.connections import Connection
from muster_runtime.database.writes import Write


async def find_used(
    connection: Connection, limit: Limit, subject_refs: Collection[str], now: datetime
) -> dict[str, Used]:
    """How much people used a feature in the current period, and how much its quota leaves them, by reference."""
    subjects, period = {whose(limit.quota, subject_ref) for subject_ref in subject_refs}, limit.period
    sums = await find_sums(connection, limit.agency_id, limit.feature, subjects, period.starts_at)
    for subject_ref in subjects - sums.keys():
        sums[subject_ref] = Sum(limit.agency_id, limit.feature, subject_ref, period.starts_at, period.ends_at)
    grants = await quota_grants.find_grants_for(connection, list(sums.values()))
    return await use_of(limit, subject_refs, sums, grants, now)


async def find_versions(
    connection: Connection, numbers: Collection[int | None], catalog: Catalog
) -> Mapping[int, Catalog]:
    """The catalog versions with these numbers, and possibly others. `catalog` is one that is already read."""
    versions = {packaged_catalog().number: packaged_catalog(), catalog.number: catalog}
    if unknown := set(numbers) - versions.keys() - {None}:
        versions |= {version.number: version.catalog for version in await catalogs.find_versions(connection, unknown)}
    return versions


async def add_seen(connection: Connection, uses: Mapping[Identity, Use]) -> set[Identity]:
    """Store events as counted; returns those that were stored before."""
    agencies, events, days = zip(*uses, strict=True)
    rows = await connection.fetch(
        """
        with event as (
            select agency_id, day, decode(event, 'hex') as event, content
            from unnest($1::text::text[], $2::text::date[], $3::text::text[], $4::text::bigint[])
                as u (agency_id, day, event, content)
        ),

        added as (
            insert into usage_seen (agency_id, day, event, content)
            select agency_id, day, event, content from event
            on conflict (agency_id, event, day) do nothing
            returning agency_id, event, day
        )

        select agency_id, event, day from event except select agency_id, event, day from added
        """,
        array(agencies),
        array(days),
        array(map(bytes.hex, events)),
        array(use.content for use in uses.values()),
    )
    return {(agency_id, event, day) for agency_id, event, day in rows}


async def find_contents(connection: Connection, uses: Sequence[Use]) -> dict[Identity, int]:
    """What was counted under the IDs of these events on their days."""
    rows = await connection.fetch(
        """
        select agency_id, event, day, content
        from usage_seen
        where (agency_id, event, day) in (select * from unnest($1::text[], $2::bytea[], $3::date[]))
        """,
        [use.agency_id for use in uses],
        [use.event for use in uses],
        [use.at.date() for use in uses],
    )
    return {(row["agency_id"], row["event"], row["day"]): row["content"] for row in rows}


async def add_to_sums(connection: Connection, uses: Sequence[Sum], least: int) -> list[Sum]:
    """Add uses and days to the sum of each subject and period.

    Returns the sums with at least `least` uses that no grant pays for, and those that got a new day.
    """
    agencies, features, subjects, starts, ends, used, granted, _, _, days, _ = zip(*uses, strict=True)
    rows = await connection.fetch(
        """
        with added as (
            insert into usage_sum as s (
                agency_id, feature, subject_ref, starts_at, ends_at, used, granted, days, fresh_days
            )
            select agency_id, feature, subject_ref, starts_at, ends_at, used, granted, days, days
            from unnest(
                $1::text::text[], $2::text::text[], $3::text::text[], $4::text::timestamptz[], $5::text::timestamptz[],
                $6::text::bigint[], $7::text::bigint[], $8::text::bigint[]
            ) as u (agency_id, feature, subject_ref, starts_at, ends_at, used, granted, days)
            on conflict (agency_id, feature, subject_ref, starts_at) do update set
                ends_at = excluded.ends_at,
                used = s.used + excluded.used,
                granted = s.granted + excluded.granted,
                days = s.days | excluded.days,
                fresh_days = excluded.days & ~s.days
            returning
                s.agency_id, s.feature, s.subject_ref, s.starts_at, s.ends_at,
                s.used, s.granted, s.excess, s.told, s.days, s.fresh_days
        )

        select * from added where used - granted >= $9 or fresh_days <> 0
        """,
        array(agencies),
        array(features),
        array(subjects),
        instants(starts),
        instants(ends),
        array(used),
        array(granted),
        array(days),
        least,
    )
    return [Sum(*row) for row in rows]


def save_sums(sums: Sequence[Sum]) -> Write:
    """Store what charging changed in sums that `add_to_sums` has stored with all their uses."""
    return (
        """
        saved_sums as (
            insert into usage_sum (
                agency_id, feature, subject_ref, starts_at, ends_at, used, granted, excess, told
            )
            select *
            from unnest(
                $1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[],
                $6::bigint[], $7::bigint[], $8::bigint[], $9::integer[]
            )
            on conflict (agency_id, feature, subject_ref, starts_at) do update
            set granted = excluded.granted, excess = excluded.excess, told = excluded.told
        )
        """,
        [
            [each.agency_id for each in sums],
            [each.feature for each in sums],
            [each.subject_ref for each in sums],
            [each.starts_at for each in sums],
            [each.ends_at for each in sums],
            [each.used for each in sums],
            [each.granted for each in sums],
            [each.excess for each in sums],
            [each.told for each in sums],
        ],
    )


async def find_sums(
    connection: Connection, agency_id: str, feature: str, subject_refs: Iterable[str], starts_at: datetime
) -> dict[str, Sum]:
    """The sums of these subjects in a period, by subject; subjects without use are left out."""
    rows = await connection.fetch(
        """
        select agency_id, feature, subject_ref, starts_at, ends_at, used, granted, excess, told
        from usage_sum
        where agency_id = $1 and feature = $2 and subject_ref = any($3::text[]) and starts_at = $4
        """,
        agency_id,
        feature,
        list(subject_refs),
        starts_at,
    )
    return {row["subject_ref"]: Sum(**row) for row in rows}


async def find_last_period(
    connection: Connection, agency_id: str, feature: str, at: datetime
) -> tuple[Period, datetime | None] | None:
    """The last period with use that began by an instant, and when the next one with use began.

    The period's end is as of the last use that was counted in it.
    """
    row = await connection.fetchrow(
        """
        select
            starts_at, ends_at,
            (
                select min(starts_at)
                from usage_sum
                where agency_id = $1 and feature = $2 and subject_ref = '' and starts_at > $3
            ) as next_starts_at
        from usage_sum
        where agency_id = $1 and feature = $2 and subject_ref = '' and starts_at <= $3
        order by starts_at desc
        limit 1
        """,
        agency_id,
        feature,
        at,
    )
    return None if row is None else (Period(row["starts_at"], row["ends_at"]), row["next_starts_at"])


async def keep_partitions(connection: Connection, today: date) -> None:
    """Create the partitions for the days around a day, and drop those that are over."""
    for table in ("usage_seen", "usage_reply", "usage_sum"):
        async with connection.transaction():
            await connection.execute("select lock_usage($1)", table)
            await connection.execute("select keep_usage_partitions($1, $2)", table, today)

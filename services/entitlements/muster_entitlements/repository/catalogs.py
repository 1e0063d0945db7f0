"""The versions of the feature catalog, and which of them each agency has."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from asyncpg import Record

from muster_contracts.entitlements import CatalogRule
from muster_entitlements.domain.catalog import (
    Catalog,
    Feature,
    Version,
    VersionState,
    packaged_catalog,
    read_features,
    write_features,
)
from muster_runtime.database.transactions import Connection

_VERSION = "select number, state, rule, features, revision, created_at, published_at from catalog_version"

# The agencies that have not adopted the newest version that applies to them. An agency whose pool is over adopts none.
_WAITING = """
    select p.agency_id
    from pool as p
    left join agency_catalog as a using (agency_id)
    where
        p.withdrawn_at is null and not p.ended
        and coalesce(greatest(a.number, a.next_number), 1)
        < (select max(number) from catalog_version where state = 'published' and rule <> 'new-agencies')
"""


@dataclass(frozen=True, slots=True)
class Adoption:
    """The version that an agency has, and the one that it gets with its next term."""

    number: int
    next_number: int | None
    next_after: datetime | None = None
    """The end of the term in which a version began to wait. `next_number` is adopted then, and what it lacks ends."""

    def comes_by(self, at: datetime) -> bool:
        """Whether a version waits for a term that begins by an instant."""
        return self.next_number is not None and (self.next_after is None or self.next_after <= at)


async def find_catalog(connection: Connection, now: datetime) -> Catalog:
    """The newest version that was published by an instant; version 1 if there is no other."""
    row = await connection.fetchrow(
        f"{_VERSION} where state = 'published' and published_at <= $1 order by number desc limit 1", now
    )
    return _to_version(row).catalog if row else packaged_catalog()


async def find_newest(connection: Connection) -> Version | None:
    """The newest published version; None if there is only version 1."""
    row = await connection.fetchrow(f"{_VERSION} where state = 'published' order by number desc limit 1")
    return _to_version(row) if row else None


async def find_version(connection: Connection, number: int) -> Version | None:
    """A published version from 2 on; None if there is none with this number."""
    row = await connection.fetchrow(f"{_VERSION} where number = $1 and state = 'published'", number)
    return _to_version(row) if row else None


async def find_versions(connection: Connection, numbers: Collection[int | None]) -> list[Version]:
    """The published versions with these numbers, from 2 on."""
    rows = await connection.fetch(f"{_VERSION} where number = any($1::int[]) and state = 'published'", list(numbers))
    return [_to_version(row) for row in rows]


async def list_published(connection: Connection, after: int, limit: int | None = None) -> list[Version]:
    """The published versions after a number, in order; without a limit, all of them."""
    rows = await connection.fetch(
        f"{_VERSION} where number > $1::bigint and state = 'published' order by number limit $2", after, limit
    )
    return [_to_version(row) for row in rows]


async def find_draft(connection: Connection) -> Version | None:
    """The draft of the next version; None if there is none."""
    row = await connection.fetchrow(f"{_VERSION} where state = 'draft'")
    return _to_version(row) if row else None


async def find_draft_revision(connection: Connection) -> int | None:
    """The revision of the draft; None if there is none."""
    revision: int | None = await connection.fetchval("select revision from catalog_version where state = 'draft'")
    return revision


async def save_draft(connection: Connection, rule: CatalogRule, features: tuple[Feature, ...], now: datetime) -> None:
    """Store the draft of the next version, which replaces an earlier draft. Each edit has its own revision."""
    await connection.execute(
        """
        insert into catalog_version (number, state, rule, features, revision, created_at)
        select
            coalesce(max(number) filter (where state = 'published'), 1) + 1, 'draft', $1, $2,
            coalesce(max(revision), 0) + 1, $3
        from catalog_version
        on conflict (number) do update set
            rule = excluded.rule,
            features = excluded.features,
            revision = excluded.revision,
            created_at = excluded.created_at
        """,
        rule,
        write_features(features),
        now,
    )


async def save_publication(connection: Connection, number: int, now: datetime) -> None:
    """Store that a draft is published."""
    await connection.execute(
        "update catalog_version set state = 'published', published_at = $2 where number = $1 and state = 'draft'",
        number,
        now,
    )


async def find_adoption(connection: Connection, agency_id: str) -> Adoption:
    """The versions of an agency."""
    row = await connection.fetchrow(
        "select number, next_number, next_after from agency_catalog where agency_id = $1", agency_id
    )
    return Adoption(**row) if row else Adoption(1, None)


async def list_adoptions(connection: Connection) -> dict[str, Adoption]:
    """The versions of agencies, by agency. Those that are left out have version 1."""
    rows = await connection.fetch("select agency_id, number, next_number, next_after from agency_catalog")
    return {row["agency_id"]: Adoption(row["number"], row["next_number"], row["next_after"]) for row in rows}


async def save_adoption(connection: Connection, agency_id: str, adoption: Adoption) -> None:
    """Store the versions of an agency."""
    await connection.execute(
        """
        insert into agency_catalog (agency_id, number, next_number, next_after)
        values ($1, $2, $3, $4)
        on conflict (agency_id) do update set
            number = excluded.number,
            next_number = excluded.next_number,
            next_after = excluded.next_after
        """,
        agency_id,
        adoption.number,
        adoption.next_number,
        adoption.next_after,
    )


async def list_waiting(connection: Connection, limit: int | None = None) -> list[str]:
    """The first agencies that have not adopted a version that applies to them; without a limit, all of them."""
    rows = await connection.fetch(f"{_WAITING} order by p.agency_id limit $1", limit)
    return [row["agency_id"] for row in rows]


async def find_oldest_wait(connection: Connection, kinds: Sequence[str]) -> datetime | None:
    """Since when an agency has waited for a version; None if none waits.

    An agency that should get a version immediately but has a parked deadline of these kinds waits for an operator, so
    it does not count.
    """
    instant: datetime | None = await connection.fetchval(
        f"""
        select max(published_at)
        from catalog_version
        where
            state = 'published' and rule <> 'new-agencies'
            and exists (
                {_WAITING}
                and not exists (
                    select
                    from deadline as d
                    join catalog_version as v on v.state = 'published' and v.rule = 'now'
                    where
                        d.agency_id = p.agency_id and d.kind = any($1::text[]) and d.parked_at is not null
                        and v.number > coalesce(a.number, 1)
                )
            )
        """,  # noqa: S608
        kinds,
    )
    return instant


async def count_without(connection: Connection, version: Version) -> int:
    """How many of the agencies that the caller can see have not adopted a version yet."""
    if version.rule is CatalogRule.NEW_AGENCIES:
        return 0
    agencies: int = await connection.fetchval(
        """
        select count(*)
        from pool as p
        left join agency_catalog as a using (agency_id)
        where p.withdrawn_at is null and not p.ended and coalesce(a.number, 1) < $1
        """,
        version.number,
    )
    return agencies


def _to_version(row: Record) -> Version:
    return Version(
        number=row["number"],
        state=VersionState(row["state"]),
        rule=CatalogRule(row["rule"]),
        features=read_features(row["features"]),
        revision=row["revision"],
        created_at=row["created_at"],
        published_at=row["published_at"],
    )

"""The versions of the feature catalog, and which of them each agency has."""

from datetime import datetime

from muster_entitlements.domain.catalog import Catalog, packaged_catalog, read_features
from muster_runtime.database.transactions import Connection


async def find_catalog(connection: Connection, now: datetime) -> Catalog:
    """The newest version that was published by an instant; version 1 until another one is."""
    row = await connection.fetchrow(
        """
        select number, features
        from catalog_version
        where state = 'published' and published_at <= $1
        order by number desc
        limit 1
        """,
        now,
    )
    if row is None:
        return packaged_catalog()
    return Catalog(row["number"], {feature.key: feature for feature in read_features(row["features"])})


async def save_adoption(connection: Connection, agency_id: str, number: int) -> None:
    """Store that an agency has a version of the catalog, and waits for no other."""
    await connection.execute(
        """
        insert into agency_catalog (agency_id, number)
        values ($1, $2)
        on conflict (agency_id) do update set number = excluded.number, next_number = null
        """,
        agency_id,
        number,
    )

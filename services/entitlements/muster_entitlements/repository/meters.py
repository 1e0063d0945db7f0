"""What decides how agencies' use counts: their windows, and the grants and trials of their people."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime

from muster_entitlements.domain.catalog import Catalog, Feature, packaged_catalog
from muster_entitlements.domain.days import zone_of
from muster_entitlements.domain.grants import Grant
from muster_entitlements.domain.meters import Meter
from muster_entitlements.domain.windows import Window
from muster_entitlements.repository import catalogs
from muster_entitlements.repository.grants import list_overlapping
from muster_entitlements.repository.seat_trials import find_begun, find_earlier
from muster_entitlements.repository.usage import find_versions
from muster_entitlements.repository.windows import COLUMNS, to_window
from muster_runtime.database.connections import Connection


async def find_meters(
    connection: Connection,
    people: Mapping[str, Collection[str]],
    since: datetime,
    catalog: Catalog,
    asked: Collection[tuple[str, str]] | None = None,
) -> dict[str, Meter]:
    """The meters for these people's use since an instant, by agency; none for an agency that was never enrolled.

    `catalog` is the newest version. `asked`, agencies and features, limits the meters to the windows of those.
    """
    rows = await connection.fetch(
        f"""
        select p.agency_id as pool_agency_id, p.time_zone, p.ends_at as term_ends_at, {COLUMNS}
        from pool as p
        left join feature_window as w
            on w.agency_id = p.agency_id and w.enrollment_id = p.enrollment_id
            and ($2::text[] is null or (w.agency_id, w.feature) in (select * from unnest($2::text[], $3::text[])))
        where p.agency_id = any($1::text[])
        """,  # noqa: S608
        list(people),
        None if asked is None else [agency_id for agency_id, _ in asked],
        None if asked is None else [feature for _, feature in asked],
    )
    pools = {row["pool_agency_id"]: (zone_of(row["time_zone"]), row["term_ends_at"]) for row in rows}
    windows: defaultdict[str, dict[str, Window]] = defaultdict(dict)
    for row in rows:
        if row["window_id"] is not None:
            windows[row["agency_id"]][row["feature"]] = to_window(row)
    numbers = {window.catalog_number for own in windows.values() for window in own.values()}
    versions = await find_versions(connection, numbers, catalog)
    grants: defaultdict[str, defaultdict[tuple[str, str | None], list[Grant]]] = defaultdict(lambda: defaultdict(list))
    for grant in await list_overlapping(connection, people, since):
        grants[grant.agency_id][grant.feature, grant.subject_ref].append(grant)
    of_seats = {
        agency_id for agency_id, own in windows.items() if any(each.seat_trial is not None for each in own.values())
    }
    begun = await find_begun(connection, {agency_id: people[agency_id] for agency_id in of_seats}) if of_seats else {}
    for agency_id in of_seats:
        if lost := set(people[agency_id]) - begun[agency_id].keys():  # use may be reported after the seat is gone
            begun[agency_id] |= await find_earlier(connection, agency_id, lost)
    granted = await find_last(connection, {key for own in grants.values() for key, _ in own}, catalog)
    meters = {}
    lacking = [
        (agency_id, key)
        for agency_id, key in asked or ()
        if key not in catalog.features and key not in windows[agency_id]
    ]
    earlier = await _find_earlier(connection, lacking, catalog) if lacking else {}
    for agency_id, (zone, term_ends_at) in pools.items():
        own = windows[agency_id]
        features = {key: versions[window.catalog_number].known(key) for key, window in own.items()}
        outlived = {key: granted[key] for key, _ in grants[agency_id] if key in granted}
        known = {**catalog.features, **earlier.get(agency_id, {}), **outlived, **features}
        meters[agency_id] = Meter(zone, own, known, grants[agency_id], begun.get(agency_id, {}), term_ends_at)
    return meters


async def _find_earlier(
    connection: Connection, lacking: Collection[tuple[str, str]], newest: Catalog
) -> dict[str, dict[str, Feature]]:
    """Features that the newest version lacks, for agencies that had a window of them: their late use counts."""
    rows = await connection.fetch(
        """
        select distinct agency_id, feature
        from feature_window
        where (agency_id, feature) in (select * from unnest($1::text[], $2::text[]))
        """,
        [agency_id for agency_id, _ in lacking],
        [key for _, key in lacking],
    )
    last = await find_last(connection, {row["feature"] for row in rows}, newest)
    features: defaultdict[str, dict[str, Feature]] = defaultdict(dict)
    for agency_id, key in rows:
        if key in last:
            features[agency_id][key] = last[key]
    return features


async def find_feature(connection: Connection, key: str, window: Window | None, now: datetime) -> Feature:
    """A feature in the catalog version that its window follows; without a window, in the last version that has it.

    A grant outlives a feature that the newest version lacks. Raises FeatureUnknown.
    """
    if window is not None:
        versions = await find_versions(connection, {window.catalog_number}, packaged_catalog())
        return versions[window.catalog_number].known(key)
    newest = await catalogs.find_catalog(connection, now)
    last = await find_last(connection, {key}, newest)
    return last[key] if key in last else newest.known(key)


async def find_last(connection: Connection, keys: Collection[str], newest: Catalog) -> dict[str, Feature]:
    """Features in the latest catalog version that has them. A key that no version has is left out."""
    found = {key: newest.features[key] for key in keys if key in newest.features}
    lacking = set(keys) - found.keys()
    if lacking:
        published = await catalogs.list_published(connection, packaged_catalog().number)
        earlier = [version.catalog for version in published if version.number < newest.number]
        for each in (packaged_catalog(), *earlier):
            found |= {key: each.features[key] for key in lacking if key in each.features}
    return found

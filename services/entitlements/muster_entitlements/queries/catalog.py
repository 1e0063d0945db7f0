"""The read side of the feature catalog: its versions, its draft, and what another catalog would change."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from muster_contracts.entitlements import CatalogRule
from muster_entitlements.domain.catalog import (
    Catalog,
    Feature,
    Version,
    packaged_catalog,
    packaged_version,
    require_keys_once,
)
from muster_entitlements.domain.grants import Grant
from muster_entitlements.domain.lowered_quotas import Above, LoweredQuota, lowered_quotas
from muster_entitlements.domain.plans import Effect, Waiting, effects, next_term_effects, windows_before
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.windows import Window
from muster_entitlements.errors import CatalogDraftMissing, CatalogVersionUnknown
from muster_entitlements.replies.catalog import CatalogPlanReply, CatalogVersionReply
from muster_entitlements.repository import catalogs, grants, pools, uses_above, windows
from muster_runtime.database.transactions import Connection
from muster_runtime.pacing import Pace
from muster_runtime.pagination import Page, Pagination


async def find_newest(connection: Connection) -> CatalogVersionReply:
    """The newest published version."""
    return await _reply(connection, await _newest(connection))


async def find_version(connection: Connection, number: int) -> CatalogVersionReply:
    """A published version. Raises CatalogVersionUnknown."""
    version = packaged_version() if number == 1 else await catalogs.find_version(connection, number)
    if version is None:
        raise CatalogVersionUnknown(number)
    return await _reply(connection, version)


async def find_draft(connection: Connection) -> CatalogVersionReply:
    """The draft of the next version. Raises CatalogDraftMissing."""
    draft = await catalogs.find_draft(connection)
    if draft is None:
        raise CatalogDraftMissing
    return CatalogVersionReply.of(draft, agencies_left=None)


async def list_versions(connection: Connection, page: Pagination) -> Page[CatalogVersionReply]:
    """The published versions, by number."""
    after = page.after_id or 0
    versions = [] if after else [packaged_version()]
    versions += await catalogs.list_published(connection, after, page.rows - len(versions))
    replies = [await _reply(connection, version) for version in versions]
    return page.make(replies, key=lambda version: str(version.number))


async def find_plan(
    connection: Connection, rule: CatalogRule, features: tuple[Feature, ...], now: datetime
) -> CatalogPlanReply:
    """What would change if these features were published now. Raises InvalidInput."""
    require_keys_once(features)
    present = await _newest(connection)
    catalog = Catalog(present.number + 1, {feature.key: feature for feature in features})
    enrolled = await _find_enrolled(connection, catalog)
    found = [] if rule is CatalogRule.NEW_AGENCIES else await _effects(enrolled, catalog, rule, now)
    above = await _above(connection, enrolled, catalog, now) if rule is CatalogRule.NOW else []
    return CatalogPlanReply.of(rule, present, features, len(enrolled.pools), found, above)


async def find_above(connection: Connection, version: Version, now: datetime) -> list[Above]:
    """Who has used more in the present period than a quota that a version lowers at once, by agency and feature."""
    if version.rule is not CatalogRule.NOW:
        return []
    return await _above(connection, await _find_enrolled(connection, version.catalog), version.catalog, now)


@dataclass(frozen=True, slots=True)
class _Enrolled:
    """What agencies have that are enrolled, and the versions of the catalog that it follows."""

    pools: Sequence[Pool]
    windows: Mapping[str, Mapping[str, Window]]
    used: Mapping[str, Mapping[str, timedelta]]
    versions: Mapping[int, Catalog]
    adoptions: Mapping[str, catalogs.Adoption]


async def _find_enrolled(connection: Connection, catalog: Catalog) -> _Enrolled:
    """With `catalog` among the versions."""
    published = await catalogs.list_published(connection, packaged_catalog().number)
    versions = {version.number: version.catalog for version in (packaged_version(), *published)}
    return _Enrolled(
        pools=await pools.list_open_pools(connection),
        windows=await windows.list_open_pools_windows(connection),
        used=await windows.list_used_trials(connection),
        versions=versions | {catalog.number: catalog},
        adoptions=await catalogs.list_adoptions(connection),
    )


async def _above(connection: Connection, enrolled: _Enrolled, catalog: Catalog, now: datetime) -> list[Above]:
    granted: defaultdict[str, list[Grant]] = defaultdict(list)
    agencies: dict[str, Sequence[str]] = {pool.agency_id: () for pool in enrolled.pools}
    for grant in await grants.list_overlapping(connection, agencies, now):
        granted[grant.agency_id].append(grant)
    lowered: list[LoweredQuota] = []
    pace = Pace()
    for pool in enrolled.pools:
        await pace.keep()
        open_, spent = enrolled.windows.get(pool.agency_id, {}), enrolled.used.get(pool.agency_id, {})
        own = granted[pool.agency_id]
        lowered += lowered_quotas(pool, catalog, open_, spent, own, now, enrolled.versions)
    return await uses_above.find_above(connection, lowered, now) if lowered else []


async def _effects(enrolled: _Enrolled, catalog: Catalog, rule: CatalogRule, now: datetime) -> list[Effect]:
    found: list[Effect] = []
    versions = enrolled.versions
    pace = Pace()
    for pool in enrolled.pools:
        await pace.keep()
        open_, spent = enrolled.windows.get(pool.agency_id, {}), enrolled.used.get(pool.agency_id, {})
        adoption = enrolled.adoptions.get(pool.agency_id, catalogs.Adoption(1, None))
        next_term = adoption.next_after or pool.ends_at
        present, waiting = versions[adoption.number], None
        if adoption.next_number is not None:
            waiting = Waiting(versions[adoption.next_number], max(next_term, now))
        if rule is CatalogRule.NOW:
            found += effects(pool, catalog, present, open_, spent, now, versions, waiting)
        else:
            then = windows_before(pool, present, open_, spent, now, next_term, waiting)
            comes_next = waiting.catalog if waiting else present
            found += next_term_effects(pool, catalog, comes_next, then, spent, next_term, versions)
    return found


async def _newest(connection: Connection) -> Version:
    published = await catalogs.find_newest(connection)
    return published or packaged_version()


async def _reply(connection: Connection, version: Version) -> CatalogVersionReply:
    return CatalogVersionReply.of(version, agencies_left=await catalogs.count_without(connection, version))

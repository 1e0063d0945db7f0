"""The read side of the feature catalog: its versions, its draft, and what another catalog would change."""

from collections.abc import Sequence
from datetime import datetime

from muster_contracts.entitlements import CatalogRule
from muster_entitlements.domain.catalog import (
    Catalog,
    Feature,
    Version,
    packaged_catalog,
    packaged_version,
    require_keys_once,
)
from muster_entitlements.domain.plans import Effect, Waiting, effects, next_term_effects, windows_before
from muster_entitlements.domain.pools import Pool
from muster_entitlements.errors import CatalogDraftMissing, CatalogVersionUnknown
from muster_entitlements.replies.catalog import CatalogPlanReply, CatalogVersionReply
from muster_entitlements.repository import catalogs, pools, windows
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
    enrolled = await pools.list_open_pools(connection)
    catalog = Catalog(present.number + 1, {feature.key: feature for feature in features})
    found = [] if rule is CatalogRule.NEW_AGENCIES else await _effects(connection, enrolled, catalog, rule, now)
    return CatalogPlanReply.of(rule, present, features, len(enrolled), found)


async def _effects(
    connection: Connection, enrolled: Sequence[Pool], catalog: Catalog, rule: CatalogRule, now: datetime
) -> list[Effect]:
    found: list[Effect] = []
    of_agencies = await windows.list_open_pools_windows(connection)
    used = await windows.list_used_trials(connection)
    adoptions = await catalogs.list_adoptions(connection)
    published = await catalogs.list_published(connection, packaged_catalog().number)
    versions = {version.number: version.catalog for version in (packaged_version(), *published)}
    versions[catalog.number] = catalog
    pace = Pace()
    for pool in enrolled:
        await pace.keep()
        open_, spent = of_agencies.get(pool.agency_id, {}), used.get(pool.agency_id, {})
        adoption = adoptions.get(pool.agency_id, catalogs.Adoption(1, None))
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

"""The read side of the feature catalog: its versions, its draft, and what a new catalog would change."""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
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
    read: Callable[..., AbstractAsyncContextManager[Connection]],
    rule: CatalogRule,
    features: tuple[Feature, ...],
    now: datetime,
) -> CatalogPlanReply:
    """What would change if these features were published now. Raises InvalidInput.

    `read` begins a transaction that reads, like Reader.read. Computations run outside of it: with many agencies and
    features, they take longer than a transaction may be idle.
    """
    require_keys_once(features)
    async with read() as connection:
        present = await _newest(connection)
        catalog = Catalog(present.number + 1, {feature.key: feature for feature in features})
        enrolled = await _find_enrolled(connection, catalog, now)
    found = [] if rule is CatalogRule.NEW_AGENCIES else await _effects(enrolled, catalog, rule, now)
    above: list[Above] = []
    if rule is CatalogRule.NOW:
        lowered = [own async for own in _lowered(enrolled, catalog, now) if own]
        async with read(partitioned="usage_sum") as connection:
            for own in lowered:
                above += await uses_above.find_above(connection, own, now)
    return CatalogPlanReply.of(rule, present, features, len(enrolled.pools), found, above)


async def find_above(connection: Connection, version: Version, now: datetime) -> list[Above]:
    """Who has used more in the current period than a quota that a version lowers immediately, by agency and feature.

    Each agency takes a statement, even if none of its quotas is lowered, so the transaction is never idle for long.
    """
    if version.rule is not CatalogRule.NOW:
        return []
    enrolled = await _find_enrolled(connection, version.catalog, now)
    above: list[Above] = []
    async for own in _lowered(enrolled, version.catalog, now):
        above += await uses_above.find_above(connection, own, now)
    return above


@dataclass(frozen=True, slots=True)
class _Enrolled:
    """What the enrolled agencies have, and the catalog versions that it follows."""

    pools: Sequence[Pool]
    windows: Mapping[str, Mapping[str, Window]]
    used: Mapping[str, Mapping[str, timedelta]]
    granted: Mapping[str, Sequence[Grant]]
    versions: Mapping[int, Catalog]
    adoptions: Mapping[str, catalogs.Adoption]


async def _find_enrolled(connection: Connection, catalog: Catalog, now: datetime) -> _Enrolled:
    """Read what the enrolled agencies have; `catalog` is added to the versions."""
    published = await catalogs.list_published(connection, packaged_catalog().number)
    versions = {version.number: version.catalog for version in (packaged_version(), *published)}
    open_ = await pools.list_open_pools(connection)
    granted: defaultdict[str, list[Grant]] = defaultdict(list)
    for grant in await grants.list_overlapping(connection, {pool.agency_id: () for pool in open_}, now):
        granted[grant.agency_id].append(grant)
    return _Enrolled(
        pools=open_,
        windows=await windows.list_open_pools_windows(connection),
        used=await windows.list_used_trials(connection),
        granted=granted,
        versions=versions | {catalog.number: catalog},
        adoptions=await catalogs.list_adoptions(connection),
    )


async def _lowered(enrolled: _Enrolled, catalog: Catalog, now: datetime) -> AsyncIterator[list[LoweredQuota]]:
    """The quotas that a version lowers immediately, agency by agency."""
    for pool in enrolled.pools:
        open_, spent = enrolled.windows.get(pool.agency_id, {}), enrolled.used.get(pool.agency_id, {})
        own = enrolled.granted.get(pool.agency_id, ())
        yield [each async for each in lowered_quotas(pool, catalog, open_, spent, own, now, enrolled.versions)]


async def _effects(enrolled: _Enrolled, catalog: Catalog, rule: CatalogRule, now: datetime) -> list[Effect]:
    found: list[Effect] = []
    versions = enrolled.versions
    for pool in enrolled.pools:
        open_, spent = enrolled.windows.get(pool.agency_id, {}), enrolled.used.get(pool.agency_id, {})
        adoption = enrolled.adoptions.get(pool.agency_id, catalogs.Adoption(1, None))
        next_term = adoption.next_after or pool.ends_at
        present, waiting = versions[adoption.number], None
        if adoption.next_number is not None:
            waiting = Waiting(versions[adoption.next_number], max(next_term, now))
        if rule is CatalogRule.NOW:
            found += await effects(pool, catalog, present, open_, spent, now, versions, waiting)
        else:
            then = await windows_before(pool, present, open_, spent, now, next_term, waiting)
            comes_next = waiting.catalog if waiting else present
            found += await next_term_effects(pool, catalog, comes_next, then, spent, next_term, versions)
    return found


async def _newest(connection: Connection) -> Version:
    published = await catalogs.find_newest(connection)
    return published or packaged_version()


async def _reply(connection: Connection, version: Version) -> CatalogVersionReply:
    return CatalogVersionReply.of(version, agencies_left=await catalogs.count_without(connection, version))

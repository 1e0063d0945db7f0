"""The commands on the feature catalog: save the draft of its next version, and publish it."""

from muster_entitlements.commands import PublishCatalog, SaveCatalogDraft
from muster_entitlements.domain.catalog import Version, require_keys_once
from muster_entitlements.domain.lowered_quotas import rule_against
from muster_entitlements.errors import CatalogDraftMissing
from muster_entitlements.publishing.catalog import catalog_published
from muster_entitlements.queries.catalog import find_above
from muster_entitlements.replies.catalog import CatalogVersionReply
from muster_entitlements.repository import catalogs
from muster_runtime.database.transactions import EVERY_AGENCY, Connection, UnitOfWork
from muster_runtime.errors import InvalidInput, PreconditionFailed
from muster_runtime.observability import audit


async def save_catalog_draft(uow: UnitOfWork, command: SaveCatalogDraft) -> CatalogVersionReply:
    """Save the draft, which replaces an earlier one; saving the same draft again changes nothing.

    Raises InvalidInput or PreconditionFailed.
    """
    require_keys_once(command.features)
    draft = await catalogs.find_draft(uow.connection)
    if command.if_revision is not None and (draft is None or draft.revision != command.if_revision):
        raise PreconditionFailed(
            f"the draft of the catalog is at revision {draft.revision}" if draft else "the catalog has no draft"
        )
    if draft is None or (draft.rule, draft.features) != (command.rule, command.features):
        await catalogs.save_draft(uow.connection, command.rule, command.features, uow.now)
        draft = await _known_draft(uow)
        _record(uow, "SaveCatalogDraft", draft)
    return CatalogVersionReply.of(draft, agencies_left=None)


async def publish_catalog(uow: UnitOfWork, command: PublishCatalog) -> CatalogVersionReply:
    """Publish the draft, if it is unchanged since it was read, and so start its rollout.

    Raises CatalogDraftMissing, PreconditionFailed, or InvalidInput.
    """
    draft = await _known_draft(uow)
    if draft.revision != command.revision:
        raise PreconditionFailed(f"the draft of the catalog is at revision {draft.revision}")
    if not command.allow_below_use:
        await _require_above_use(uow, draft)
    await catalogs.save_publication(uow.connection, draft.number, uow.now)
    published = await catalogs.find_version(uow.connection, draft.number)
    assert published is not None  # it was just published
    uow.publish(catalog_published(published, uow.now))
    uow.wake()
    _record(uow, "PublishCatalog", published, allow_below_use=command.allow_below_use)
    return CatalogVersionReply.of(published, agencies_left=await catalogs.count_without(uow.connection, published))


async def find_draft_revision(connection: Connection) -> int:
    """The revision of the draft; 0 if there is none."""
    return await catalogs.find_draft_revision(connection) or 0


async def _known_draft(uow: UnitOfWork) -> Version:
    draft = await catalogs.find_draft(uow.connection)
    if draft is None:
        raise CatalogDraftMissing
    return draft


async def _require_above_use(uow: UnitOfWork, draft: Version) -> None:
    """Raise InvalidInput for the first quota that would immediately be lower than the use in the current period.

    Use continues meanwhile: anyone who uses more before their agency has the version may exceed its quota then.
    """
    found = await find_above(uow.connection, draft, uow.now)
    for place, feature in enumerate(draft.features):
        above = [each for each in found if each.feature == feature.key]
        if above and feature.stated_quota is not None:
            field = "monthly_quota_after" if feature.quota is None else "quota.limit"
            raise InvalidInput(f"features.{place}.{field}", feature.stated_quota.limit, rule_against(above))


def _record(uow: UnitOfWork, command: str, version: Version, **more: bool) -> None:
    audit.record(
        uow,
        command=command,
        agency_id=EVERY_AGENCY,
        subject=str(version.number),
        after={
            "rule": version.rule,
            "features": [feature.model_dump(mode="json", exclude_defaults=True) for feature in version.features],
            **more,
        },
    )

"""The commands on grants: grant a feature to an agency or a person, and revoke a grant."""

from dataclasses import asdict, replace
from typing import Any

from muster_contracts.entitlements import AccessMode, QuotaScope
from muster_entitlements.commands import GrantFeature, RevokeGrant
from muster_entitlements.domain.catalog import Catalog, Feature
from muster_entitlements.domain.grants import MOST_STANDING, Grant
from muster_entitlements.domain.lowered_quotas import LoweredQuota
from muster_entitlements.domain.quotas import WHOLE_AGENCY
from muster_entitlements.errors import GrantEnded, GrantOverlaps, GrantsFull, GrantUnknown
from muster_entitlements.handlers.lookups import known_feature, known_pool
from muster_entitlements.handlers.quota_terms import tell_uses, tell_uses_of
from muster_entitlements.handlers.snapshots import publish_granted, publish_holders
from muster_entitlements.publishing.catalog import entitlement_granted, entitlement_revoked
from muster_entitlements.replies.grants import GrantReply
from muster_entitlements.repository import catalogs, grants, pools, quota_grants, usage, uses_above
from muster_entitlements.repository.meters import find_meters
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import InvalidInput
from muster_runtime.identifiers import new_id
from muster_runtime.observability import audit


async def grant_feature(uow: UnitOfWork, command: GrantFeature) -> GrantReply:
    """Grant a feature. Raises PoolUnknown, FeatureUnknown, InvalidInput, GrantOverlaps, or GrantsFull."""
    agency_id = command.agency_id
    pool = await known_pool(uow, agency_id)
    newest = await catalogs.find_catalog(uow.connection, uow.now)
    feature = newest.features.get(command.feature) or await known_feature(uow, pool, command.feature)
    starts_at = command.starts_at or uow.now
    if starts_at < uow.now:
        raise InvalidInput("starts_at", starts_at, "must not be in the past")
    if command.ends_at is not None and command.ends_at <= starts_at:
        raise InvalidInput("ends_at", command.ends_at, "must be after starts_at, and in the future")
    grant = Grant(
        grant_id=new_id("grt", uow.now),
        agency_id=agency_id,
        feature=feature.key,
        subject_ref=command.subject_ref,
        mode=command.mode,
        monthly_quota=_monthly_quota(feature) if command.mode is AccessMode.QUOTA else None,
        starts_at=starts_at,
        ends_at=command.ends_at,
        reason=command.reason,
    )
    if not command.allow_below_use and grant.monthly_quota is not None:
        await _require_quota_above_use(uow, grant, grant.monthly_quota, newest)
    subjects = [grant.subject_ref] if grant.subject_ref else []
    found = await grants.list_standing(uow.connection, agency_id, subjects, uow.now, feature.key)
    standing = [other for other in found if other.subject_ref == grant.subject_ref]
    for other in standing:
        if grant.overlaps(other):
            raise GrantOverlaps(other.grant_id)
    if len(standing) >= MOST_STANDING:
        rule = f"must have fewer than {MOST_STANDING} grants to {grant.subject_ref or agency_id} that have not ended"
        raise GrantsFull(f"feature: {feature.key!r} {rule}; wait until one ends, or revoke one", most=MOST_STANDING)
    await grants.add_grant(uow.connection, grant, uow.now)
    await pools.save_revision(uow.connection, agency_id)
    uow.publish(entitlement_granted(grant))
    await publish_granted(uow, agency_id, grant.subject_ref or WHOLE_AGENCY)
    await _tell_uses(uow, grant)
    after = asdict(grant) | {"allow_below_use": command.allow_below_use}
    _record(uow, "GrantFeature", grant, command.reason, after=after)
    return GrantReply.of(grant, uow.now)


async def revoke_grant(uow: UnitOfWork, command: RevokeGrant) -> GrantReply:
    """Revoke a grant; repeating it changes nothing. Raises GrantUnknown or GrantEnded."""
    grant = await grants.find_grant(uow.connection, command.agency_id, command.grant_id)
    if grant is None:
        raise GrantUnknown(command.agency_id, command.grant_id)
    if grant.revoked_at is not None:
        return GrantReply.of(grant, uow.now)
    if grant.ends_at is not None and grant.ends_at <= uow.now:
        raise GrantEnded(grant.grant_id, grant.ends_at)
    revoked = replace(grant, revoked_at=uow.now)
    await grants.save_revocation(uow.connection, grant, uow.now)
    await pools.save_revision(uow.connection, grant.agency_id)
    uow.publish(entitlement_revoked(grant, command.reason, uow.now))
    await publish_holders(uow, grant.agency_id, [grant.subject_ref or WHOLE_AGENCY])
    await _tell_uses(uow, grant)
    _record(uow, "RevokeGrant", grant, command.reason, after={"revoked_at": uow.now})
    return GrantReply.of(revoked, uow.now)


async def _tell_uses(uow: UnitOfWork, grant: Grant) -> None:
    if grant.mode is not AccessMode.QUOTA:
        return
    if grant.subject_ref:
        await tell_uses_of(uow, grant.agency_id, [grant.subject_ref])
    else:
        await tell_uses(uow, grant.agency_id)


async def _require_quota_above_use(uow: UnitOfWork, grant: Grant, quota: int, newest: Catalog) -> None:
    """Raise InvalidInput if the person, or anyone in the agency, has used more than the quota in its first period."""
    people = {grant.agency_id: [grant.subject_ref] if grant.subject_ref else []}
    meter = (await find_meters(uow.connection, people, uow.now, newest))[grant.agency_id]
    starts_at = meter.period(grant.feature, grant.starts_at).starts_at
    if grant.subject_ref:
        of_person = [grant.subject_ref]
        sums = await usage.find_sums(uow.connection, grant.agency_id, grant.feature, of_person, starts_at)
        further = await quota_grants.find_grants_for(uow.connection, list(sums.values()))
        if any(each.subject_ref and each.is_active(grant.starts_at) for each in further):
            return
        most, who = max((total.charged for total in sums.values()), default=0), "the person"
    else:
        limited = LoweredQuota(grant.agency_id, grant.feature, QuotaScope.SEAT, starts_at, quota)
        above = await uses_above.find_above(uow.connection, [limited], grant.starts_at)
        most, who = (above[0].most, str(above[0])) if above else (0, "")
    if most > quota:
        rule = f"must be unlimited: the quota is {quota}, and {who} used {most} in the current period; "
        raise InvalidInput("mode", grant.mode.value, f"{rule}or allow_below_use must be true")


def _monthly_quota(feature: Feature) -> int:
    quota = feature.stated_quota
    if quota is None or quota.monthly is None:
        raise InvalidInput(
            "mode", "quota", f"must be unlimited: {feature.key} has no quota per seat and calendar month"
        )
    return quota.monthly


def _record(uow: UnitOfWork, command: str, grant: Grant, reason: str, after: dict[str, Any]) -> None:
    audit.record(
        uow, command=command, agency_id=grant.agency_id, subject=grant.grant_id, after=after, reason=reason or None
    )

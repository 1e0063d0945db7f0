"""Grants uses beyond a quota."""

from muster_contracts.entitlements import AccessMode, QuotaScope
from muster_entitlements.commands import GrantQuota
from muster_entitlements.domain.quotas import WHOLE_AGENCY, QuotaGrant
from muster_entitlements.errors import QuotaGrantsFull
from muster_entitlements.handlers.lookups import known_feature, known_pool
from muster_entitlements.handlers.snapshots import publish_granted
from muster_entitlements.publishing.quotas import quota_granted
from muster_entitlements.replies.usage import QuotaGrantReply
from muster_entitlements.repository import grants, pools, quota_grants
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import InvalidInput
from muster_runtime.identifiers import new_id
from muster_runtime.observability import audit

# The recipient's record lists every unspent grant, and must not outgrow what Kafka accepts.
MOST_UNSPENT = 50


async def grant_quota(uow: UnitOfWork, command: GrantQuota) -> QuotaGrantReply:
    """Grant uses to a person, or to all people of the agency.

    Raises PoolUnknown, FeatureUnknown, InvalidInput, QuotaGrantsFull, or GrantsFull.
    """
    pool = await known_pool(uow, command.agency_id)
    grant = QuotaGrant(
        agency_id=command.agency_id,
        grant_id=new_id("qgr", uow.now),
        feature=command.feature,
        subject_ref=command.subject_ref or WHOLE_AGENCY,
        amount=command.amount,
        spent=0,
        priority=command.priority,
        starts_at=command.starts_at or uow.now,
        ends_at=command.ends_at,
    )
    if not await _has_granted_quota(uow, grant):
        feature = await known_feature(uow, pool, command.feature)
        if command.subject_ref is not None and feature.stated_quota and feature.stated_quota.per is QuotaScope.AGENCY:
            rule = f"must be left out: the quota of {feature.key} is of the whole agency"
            raise InvalidInput("subject", command.subject_ref, rule)
    if grant.ends_at is not None and grant.ends_at <= max(grant.starts_at, uow.now):
        raise InvalidInput("ends_at", grant.ends_at, "must be after starts_at, and in the future")
    if await quota_grants.count_unspent(uow.connection, grant, uow.now) >= MOST_UNSPENT:
        raise QuotaGrantsFull(grant.feature, MOST_UNSPENT)
    await quota_grants.add_grant(uow.connection, grant, uow.now)
    await pools.save_revision(uow.connection, grant.agency_id)
    uow.publish(quota_granted(grant))
    await publish_granted(uow, grant.agency_id, grant.subject_ref)
    audit.record(
        uow,
        command="GrantQuota",
        agency_id=grant.agency_id,
        subject=grant.grant_id,
        after={
            "feature": grant.feature,
            "subject_ref": command.subject_ref,
            "amount": grant.amount,
            "priority": grant.priority,
            "starts_at": grant.starts_at,
            "ends_at": grant.ends_at,
        },
        reason=command.reason,
    )
    return QuotaGrantReply.of(grant)


async def _has_granted_quota(uow: UnitOfWork, grant: QuotaGrant) -> bool:
    """Whether a feature grant gives the person, or the agency, a quota at some instant within the quota grant.

    Such a quota counts for each person separately, and lasts even if the catalog no longer has the feature.
    """
    subjects = [grant.subject_ref] if grant.subject_ref else []
    standing = await grants.list_standing(uow.connection, grant.agency_id, subjects, uow.now, grant.feature)
    return any(other.mode is AccessMode.QUOTA and other.overlaps(grant) for other in standing)

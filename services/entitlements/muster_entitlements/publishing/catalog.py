"""Turns facts of the catalog, and grants in addition to it, into events of the contract."""

from datetime import datetime

from muster_contracts.entitlements import (
    CatalogFeature,
    CatalogQuota,
    EntitlementGranted,
    EntitlementRevoked,
    FeatureCatalogPublished,
)
from muster_entitlements.domain.catalog import Feature, Version
from muster_entitlements.domain.grants import Grant
from muster_runtime.identifiers import EVERY_AGENCY

# The program has one catalog.
CATALOG_ID = "features"


def catalog_published(version: Version, published_at: datetime) -> FeatureCatalogPublished:
    """A version of the catalog as a whole."""
    return FeatureCatalogPublished(
        agency_id=EVERY_AGENCY,
        catalog_id=CATALOG_ID,
        number=version.number,
        rule=version.rule,
        features=[_catalog_feature(feature) for feature in version.features],
        published_at=published_at,
    )


def _catalog_feature(feature: Feature) -> CatalogFeature:
    quota = feature.stated_quota
    return CatalogFeature(
        key=feature.key,
        title=feature.name,
        kind=feature.kind,
        value=feature.value,
        mode=feature.mode,
        trial_days=feature.trial_days,
        anchor=feature.anchor,
        anchor_at=feature.anchor_at,
        ends_soon_days=list(feature.ends_soon_days),
        grace_days=feature.grace_days,
        mode_after=feature.mode_after,
        quota=CatalogQuota(**quota.model_dump() | {"thresholds": list(quota.thresholds)}) if quota else None,
    )


def entitlement_granted(grant: Grant) -> EntitlementGranted:
    """A feature is granted in addition to its window."""
    return EntitlementGranted(
        agency_id=grant.agency_id,
        feature=grant.feature,
        grant_id=grant.grant_id,
        subject_ref=grant.subject_ref,
        mode=grant.mode,
        starts_at=grant.starts_at,
        ends_at=grant.ends_at,
        monthly_quota=grant.monthly_quota,
        reason=grant.reason,
    )


def entitlement_revoked(grant: Grant, reason: str, revoked_at: datetime) -> EntitlementRevoked:
    """A grant is revoked."""
    return EntitlementRevoked(
        agency_id=grant.agency_id,
        feature=grant.feature,
        grant_id=grant.grant_id,
        subject_ref=grant.subject_ref,
        reason=reason,
        revoked_at=revoked_at,
    )

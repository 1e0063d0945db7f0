"""The replies of the catalog's routes."""

from collections.abc import Iterable

from pydantic import BaseModel, Field

from muster_contracts import Instant
from muster_contracts.entitlements import CatalogRule
from muster_entitlements.domain.catalog import WIDTH, Feature, Version, VersionState
from muster_entitlements.domain.lowered_quotas import Above
from muster_entitlements.domain.plans import Effect


class CatalogVersionReply(BaseModel):
    """A version of the feature catalog."""

    number: int
    state: VersionState
    rule: CatalogRule = Field(
        description="How it reaches agencies that are already enrolled: at once, with their next term, or not at all."
    )
    features: list[Feature]
    revision: int = Field(description="Increases with each edit of a draft; the draft's ETag.")
    published_at: Instant | None = Field(description="null for a draft, and for version 1, which is packaged.")
    agencies_left: int | None = Field(
        description="How many of the agencies that the caller acts for do not have it yet; null for a draft."
    )

    @classmethod
    def of(cls, version: Version, *, agencies_left: int | None) -> "CatalogVersionReply":
        """The reply for a version."""
        return cls(
            number=version.number,
            state=version.state,
            rule=version.rule,
            features=list(version.features),
            revision=version.revision,
            published_at=version.published_at,
            agencies_left=agencies_left,
        )


class FeaturePlanReply(BaseModel):
    """What a catalog would change for one feature. An agency can gain in one way and lose in another."""

    feature: str
    changed: list[str] = Field(
        description="The fields that differ from the current catalog; for a new feature, from the defaults."
    )
    removed: bool
    narrower: bool = Field(
        description="Whether it is open for the term with narrower access than in the current catalog. People who have "
        "wider access keep it until their term ends."
    )
    gaining: list[str] = Field(description="Agencies whose people could use the feature more, or for longer.")
    gaining_seats: int
    losing: list[str] = Field(description="Agencies whose people could use the feature less.")
    losing_seats: int
    above: list[str] = Field(
        description="Agencies whose use in the current period exceeds an enforced quota that this immediately lowers."
    )
    above_people: int = Field(description="How many of their people have used more; 0 for a quota of the whole agency.")
    most_used: int = Field(description="The lowest limit at which nobody would be above it; 0 if nobody is.")


class CatalogPlanReply(BaseModel):
    """What would change if a catalog were published now."""

    number: int = Field(description="The number that the version would have.")
    rule: CatalogRule
    agencies: int = Field(description="Agencies that are enrolled now.")
    features: list[FeaturePlanReply] = Field(description="The features that would change.")

    @classmethod
    def of(
        cls,
        rule: CatalogRule,
        present: Version,
        features: Iterable[Feature],
        agencies: int,
        effects: Iterable[Effect],
        above: Iterable[Above],
    ) -> "CatalogPlanReply":
        """The reply for a catalog compared with the current version: its effects on agencies, and who is above."""
        found = list(effects)
        before, after = present.catalog.features, {feature.key: feature for feature in features}
        plans = {
            key: FeaturePlanReply(
                feature=key,
                changed=_changed(before.get(key), after.get(key)),
                removed=key not in after,
                narrower=_is_narrower(before.get(key), after.get(key)),
                gaining=[],
                gaining_seats=0,
                losing=[],
                losing_seats=0,
                above=[],
                above_people=0,
                most_used=0,
            )
            for key in dict.fromkeys([*after, *before, *sorted(effect.feature for effect in found)])
        }
        for effect in found:
            plan = plans[effect.feature]
            if effect.gains:
                plan.gaining.append(effect.agency_id)
                plan.gaining_seats += effect.seats
            if effect.loses:
                plan.losing.append(effect.agency_id)
                plan.losing_seats += effect.seats
        for each in above:
            plan = plans[each.feature]
            plan.above.append(each.agency_id)
            plan.above_people += each.people
            plan.most_used = max(plan.most_used, each.most)
        changing = [
            plan for plan in plans.values() if plan.changed or plan.removed or plan.gaining or plan.losing or plan.above
        ]
        return cls(number=present.number + 1, rule=rule, agencies=agencies, features=changing)


def _changed(before: Feature | None, after: Feature | None) -> list[str]:
    if after is None:
        return []
    if before is None:
        return sorted(after.model_dump(exclude_defaults=True))
    return sorted(name for name in Feature.model_fields if getattr(before, name) != getattr(after, name))


def _is_narrower(before: Feature | None, after: Feature | None) -> bool:
    if before is None or after is None or before.trial is not None or after.trial is not None:
        return False
    return WIDTH[after.mode] < WIDTH[before.mode]

"""Turns the adoption of a day into its event."""

from collections.abc import Sequence
from datetime import date

from muster_contracts.entitlements import AdoptionSummarized, FeatureAdoption
from muster_entitlements.domain.adoption import Adoption
from muster_entitlements.domain.pools import Pool


def adoption_summarized(pool: Pool, day: date, adoption: Sequence[Adoption]) -> AdoptionSummarized:
    """How many people of an agency use each feature, without the numbers that cover too few people."""
    return AdoptionSummarized(
        agency_id=pool.agency_id,
        day=day.isoformat(),
        seats=pool.in_use,
        features=[
            FeatureAdoption(
                feature=each.feature,
                active=each.active,
                active_7_days=each.active_7_days,
                active_28_days=each.active_28_days,
                first_uses=each.first_uses,
                never_used=each.never_used,
            )
            for each in (whole.shown(pool.in_use) for whole in adoption)
        ],
    )

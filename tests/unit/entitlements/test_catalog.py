"""The feature catalog: what each feature may specify, and how an unknown one is refused."""

from collections.abc import Collection
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

import pytest

from muster_contracts.entitlements import AccessMode, FeatureKind
from muster_entitlements.domain import nearest as domain
from muster_entitlements.domain.catalog import (
    MOST_FEATURES,
    Catalog,
    Feature,
    Quota,
    packaged_catalog,
    read_features,
    write_features,
)
from muster_entitlements.errors import FeatureUnknown
from muster_entitlements.handlers.usage import MOST_NEAREST, Nearest

PLAIN: dict[str, Any] = {"key": "a", "name": "A", "mode": "unlimited", "mode_after": "none"}
TRIAL = PLAIN | {"trial_days": 60, "mode_after": "quota", "monthly_quota_after": 25}


def test_the_first_version_is_packaged() -> None:
    catalog = packaged_catalog()
    found = {key: (feature.trial, feature.seat_quota_after, feature.kind) for key, feature in catalog.features.items()}
    assert (catalog.number, found) == (
        1,
        {
            "frontier-models": (None, None, FeatureKind.BOOLEAN),
            "deep-research": (timedelta(days=60), 25, FeatureKind.METERED),
            "advanced-voice-mode": (timedelta(days=60), 60, FeatureKind.METERED),
        },
    )


def test_the_short_form_of_a_quota_means_a_hard_one_per_seat_and_month() -> None:
    assert Feature(**TRIAL).stated_quota == Quota(limit=25)
    assert Feature(**PLAIN, value=128_000).kind is FeatureKind.STATIC
    per_agency = TRIAL | {"monthly_quota_after": None, "quota": {"limit": 1000, "per": "agency"}}
    assert (Feature(**per_agency).kind, Feature(**per_agency).seat_quota_after) == (FeatureKind.METERED, None)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mode_after": "quota"}, "quota or monthly_quota_after is required"),
        ({"monthly_quota_after": 25}, "quota or monthly_quota_after is required"),
        ({"mode": "quota"}, "quota is required"),
        ({"quota": {"limit": 1}}, "quota is allowed only with mode"),
        ({"mode_after": "quota", "monthly_quota_after": 1, "quota": {"limit": 1}}, "set only one of them"),
        ({"mode": "quota", "quota": {"limit": -1}}, "quota.limit"),
        ({"mode": "quota", "quota": {"limit": 1.5}}, "quota.limit"),
        ({"mode": "quota", "quota": {"limit": 1, "hard": False, "report_only": True}}, "report_only is for a hard"),
        ({"mode": "quota", "quota": {"limit": 1, "thresholds": [80, 50]}}, "strictly ascending order"),
        ({"anchor": "program"}, "anchor_at is required"),
        ({"anchor_at": "2025-08-06T00:00:00Z"}, "anchor_at is required"),
        ({"anchor": "program", "anchor_at": "2025-08-06T00:00:00"}, "anchor_at"),
        ({"anchor": "seat"}, "trial_days is required"),
        ({"grace_days": 7}, "grace_days is allowed only with trial_days"),
        ({"trial_days": 0}, "trial_days"),
        ({"trial_days": 60.0}, "trial_days"),
        ({"trial_days": 60, "ends_soon_days": [7, 7]}, "must not repeat a number"),
        ({"ends_soon_days": [0]}, "ends_soon_days.0"),
        ({"key": "Deep Research"}, "key"),
        ({"value": 1.5}, "value"),
        ({"value": 2**60}, "value"),
        ({"name": "A\x00"}, "name"),
        ({"anchor": "program", "anchor_at": 1754438400}, "must be an instant"),
        ({"anchor": "program", "anchor_at": "9999-12-31T00:00:00Z"}, "must be in the years 2000 to 2199"),
        ({"mode": "quota", "quota": {"limit": 2**31}}, "must be at most 2147483647"),
        ({"size": "large"}, "size"),
    ],
)
def test_a_feature_that_contradicts_itself_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Feature(**PLAIN | change)


def test_features_survive_writing_and_reading() -> None:
    features = (
        *packaged_catalog().features.values(),
        Feature(**PLAIN, value="large"),
        Feature(
            key="seat-trial",
            name="Trial of a seat",
            mode=AccessMode.QUOTA,
            mode_after=AccessMode.NONE,
            trial_days=30,
            anchor="seat",
            ends_soon_days=(3,),
            grace_days=5,
            quota=Quota(limit=5, per="agency", hard=False, period="anchor", thresholds=(90,)),
        ),
    )
    assert read_features(write_features(features)) == features
    assert "ends_soon_days" not in write_features(features[:1])


def test_an_unknown_feature_is_refused_with_the_nearest_names() -> None:
    assert packaged_catalog().known("deep-research").monthly_quota_after == 25
    with pytest.raises(FeatureUnknown, match="deep-research") as refused:
        packaged_catalog().known("deep-reserch")
    assert refused.value.extensions == {"nearest": ["deep-research"]}
    with pytest.raises(FeatureUnknown) as refused:
        packaged_catalog().known("x" * 5000)
    assert (refused.value.extensions, len(str(refused.value)) < 200) == ({"nearest": []}, True)


def test_an_unknown_key_is_compared_with_only_a_few_of_many_similar_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def counted(key: str, keys: Collection[str], n: int, cutoff: float) -> list[str]:
        compared.append(len(keys))
        return get_close_matches(key, keys, n, cutoff)

    monkeypatch.setattr(domain, "get_close_matches", counted)
    feature = packaged_catalog().features["frontier-models"]
    catalog = Catalog(2, {f"{number:03}-{'research' * 6}": feature for number in range(MOST_FEATURES)})
    assert catalog.nearest(f"117-{'reserach' * 6}")[0] == f"117-{'research' * 6}"
    assert catalog.nearest(f"x117-{'research' * 600}")[0] == f"117-{'research' * 6}"
    assert max(compared) <= 10


def test_similar_names_are_looked_up_for_a_limited_number_of_keys() -> None:
    nearest, catalog = Nearest(), packaged_catalog()
    found = [nearest.refuse(f"deep-research-{number}", catalog).detail for number in range(MOST_NEAREST + 1)]
    assert ["did you mean deep-research" in each for each in found] == [True] * MOST_NEAREST + [False]
    assert nearest.refuse("deep-research-0", catalog).detail == found[0]

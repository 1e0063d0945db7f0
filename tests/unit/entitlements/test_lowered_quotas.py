"""Which quotas a version lowers at once, in which period, and what a refusal says about people above the new limit."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from muster_contracts.entitlements import AccessMode, Anchor, QuotaScope
from muster_entitlements.domain.catalog import Feature, Quota
from muster_entitlements.domain.grants import Grant
from muster_entitlements.domain.lowered_quotas import Above, LoweredQuota, lowered_quotas, rule_against
from tests.unit.entitlements.test_rollouts import catalog, opened
from tests.unit.entitlements.test_windows_and_checks import POOL, START

DAY = timedelta(days=1)
NOW = START + 70 * DAY
MONTH = datetime(NOW.year, NOW.month, 1, tzinfo=UTC)


def metered(**changes: Any) -> Feature:
    """A trial of 60 days, then a quota."""
    terms: dict[str, Any] = {
        "trial_days": 60,
        "mode": AccessMode.UNLIMITED,
        "mode_after": AccessMode.QUOTA,
        "quota": Quota(limit=20),
    }
    return Feature(key="a", name="A", **terms | changes)


async def lowered(before: Feature, after: Feature, now: datetime = NOW, *grants: Grant) -> list[LoweredQuota]:
    present, version = catalog(1, before), catalog(2, after)
    versions = {1: present, 2: version}
    return [each async for each in lowered_quotas(POOL, version, opened(present), {}, grants, now, versions)]


async def test_a_lower_quota_is_found_with_its_period() -> None:
    found = await lowered(metered(), metered(quota=Quota(limit=10)))
    assert found == [LoweredQuota(POOL.agency_id, "a", QuotaScope.SEAT, max(MONTH, START + 60 * DAY), 10)]


@pytest.mark.parametrize("limit", [20, 21], ids=["the same", "a higher one"])
async def test_a_quota_that_is_not_lower_is_not_found(limit: int) -> None:
    assert await lowered(metered(), metered(quota=Quota(limit=limit))) == []


async def test_a_quota_that_limits_nobody_now_is_not_found() -> None:
    assert await lowered(metered(), metered(quota=Quota(limit=1)), START + 10 * DAY) == []  # within the trial
    for quota in (Quota(limit=1, hard=False), Quota(limit=1, report_only=True)):
        assert await lowered(metered(), metered(quota=quota)) == []


@pytest.mark.parametrize(
    "before",
    [
        metered(mode_after=AccessMode.UNLIMITED, quota=None),
        metered(quota=Quota(limit=10, hard=False)),
        metered(quota=Quota(limit=10, report_only=True)),
        metered(quota=Quota(limit=10, per=QuotaScope.AGENCY)),
    ],
    ids=["unlimited", "soft", "report-only", "the agency's"],
)
async def test_a_quota_counts_as_lowered_where_none_limited_the_same_use(before: Feature) -> None:
    assert [each.limit for each in await lowered(before, metered(quota=Quota(limit=10)))] == [10]


async def test_a_grant_to_the_agency_decides_before_the_version() -> None:
    grant = Grant("grt_1", POOL.agency_id, "a", None, AccessMode.UNLIMITED, None, START, None, "pilot")
    lower = metered(quota=Quota(limit=10))
    assert await lowered(metered(), lower, NOW, grant) == []
    assert await lowered(metered(), lower, NOW, replace(grant, mode=AccessMode.QUOTA, monthly_quota=15)) == []
    assert len(await lowered(metered(), lower, NOW, replace(grant, feature="b"))) == 1


@pytest.mark.parametrize(
    "modes",
    [
        {"mode": AccessMode.UNLIMITED, "mode_after": AccessMode.QUOTA},
        {"mode": AccessMode.QUOTA, "mode_after": AccessMode.NONE},
    ],
    ids=["those whose trial is over", "those whose trial continues"],
)
async def test_the_quota_of_some_seats_is_found(modes: dict[str, Any]) -> None:
    seats = metered(anchor=Anchor.SEAT, trial_days=30, **modes)
    assert [each.limit for each in await lowered(seats, seats.model_copy(update={"quota": Quota(limit=10)}))] == [10]


async def test_a_longer_seat_trial_continues_for_seats_that_began_later() -> None:
    seats = metered(anchor=Anchor.SEAT, trial_days=30)
    longer = seats.model_copy(update={"quota": Quota(limit=10), "trial_days": 60, "grace_days": 5})
    assert [each.begun_until for each in await lowered(seats, longer)] == [NOW - 65 * DAY]
    within = seats.model_copy(update={"mode": AccessMode.QUOTA, "mode_after": AccessMode.NONE})
    lower = within.model_copy(update={"quota": Quota(limit=10), "trial_days": 60})
    assert [each.begun_until for each in await lowered(within, lower)] == [
        None
    ]  # it limits seats whose trial continues


def test_a_refusal_names_the_first_agencies_and_counts_the_others() -> None:
    above = [Above("NASA", "a", 1, 12), Above("NSF", "a", 0, 30), Above("DOE", "a", 1_000, 14)]
    most = (
        "must be at least 30: 1 person of NASA, NSF and 1000 people of DOE used up to that many in the current period"
    )
    assert rule_against(above).startswith(most)
    more = [*above, Above("EPA", "a", 1, 11), Above("GSA", "a", 1, 11)]
    assert "1000 people of DOE and 2 more agencies used" in rule_against(more)

"""The sound books' entries for the year's new features: a seat's own trial, and an agency's quota."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from muster_contracts import Event
from muster_contracts.entitlements import (
    AgencyQuotaThresholdCrossed,
    CatalogRule,
    EndingSeats,
    FeatureWindowOpened,
    SeatActivated,
    SeatTrialExpired,
    SeatTrialsEndingSoon,
)
from muster_entitlements.domain.catalog import Feature, Version, VersionState
from muster_entitlements.publishing.catalog import catalog_published
from muster_local.demo.evidence import UsageSum
from muster_local.demo.new_features import AGENTS, CANVAS, Use

START = datetime(2025, 8, 6, 14, tzinfo=UTC)
DAY = timedelta(days=1)
EXTENDED_AT = START + 30 * DAY
TRIAL_END = START + 60 * DAY
CATALOG_AT = datetime(2026, 2, 2, 14, tzinfo=UTC)
USED_AT = CATALOG_AT + DAY
SEAT_TRIAL_END = USED_AT + 30 * DAY
MONTH_END = datetime(2026, 3, 1, tzinfo=UTC)
YEAR_END = datetime(2026, 8, 6, 14, tzinfo=UTC)

CATALOG = Version(
    number=2,
    state=VersionState.PUBLISHED,
    rule=CatalogRule.NOW,
    features=(Feature.model_validate(CANVAS), Feature.model_validate(AGENTS)),
    revision=1,
    created_at=CATALOG_AT,
    published_at=CATALOG_AT,
)


def seat(event: Callable[..., Event], number: int, **more: Any) -> Event:
    return event(agency_id="NASA", seat_id=f"seat_{number}", subject_ref=f"sub_{number}", **more)


def new_features() -> list[tuple[Event, datetime]]:
    """What is published of them."""
    return [
        (
            catalog_published(CATALOG, CATALOG_AT),
            CATALOG_AT,
        ),
        *(
            (
                FeatureWindowOpened(
                    agency_id="NASA",
                    window_id=f"win_{feature['key']}",
                    feature=feature["key"],
                    mode=feature["mode"],
                    starts_at=CATALOG_AT,
                    ends_at=YEAR_END,
                    mode_after="none",
                ),
                CATALOG_AT,
            )
            for feature in (CANVAS, AGENTS)
        ),
        (seat(SeatActivated, 3), USED_AT),
        *(
            (
                SeatTrialsEndingSoon(
                    agency_id="NASA",
                    window_id="win_canvas",
                    feature="canvas",
                    ending=[EndingSeats(days_left=days, seats=1)],
                ),
                SEAT_TRIAL_END.replace(hour=0) - days * DAY,
            )
            for days in (7, 1)
        ),
        (
            seat(
                SeatTrialExpired,
                3,
                window_id="win_canvas",
                feature="canvas",
                expired_at=SEAT_TRIAL_END,
                mode_after="none",
            ),
            SEAT_TRIAL_END,
        ),
        *(
            (
                AgencyQuotaThresholdCrossed(
                    agency_id="NASA",
                    feature="agents",
                    used=used,
                    quota=20,
                    threshold_percent=percent,
                    period_starts_at=CATALOG_AT,
                    period_ends_at=MONTH_END,
                ),
                USED_AT,
            )
            for used, percent in ((11, 50), (17, 80), (20, 100))
        ),
    ]


def use(amount: int, *, reported: bool = False, counted: bool = True, used: int | None = None) -> Use:
    return Use(USED_AT, "NASA", "agents", amount, reported, counted, used)


USAGE_SUM = UsageSum("NASA", "agents", CATALOG_AT, MONTH_END, 20)
USES = [
    use(9, used=9),
    use(2, reported=True),
    use(1, reported=True, counted=False),
    use(6, used=17),
    use(4, counted=False),
    use(3, used=20),
    use(1, counted=False),
]

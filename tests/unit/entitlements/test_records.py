"""Records of the snapshot topic have room for everything except grants."""

from datetime import UTC, datetime, timedelta

from muster_contracts import encode
from muster_contracts.entitlements import (
    AccessMode,
    AccessPhase,
    AgencyAccess,
    FeatureTimeline,
    QuotaScope,
    QuotaTerms,
    QuotaUse,
)
from muster_entitlements.domain.catalog import LONGEST_KEY, MOST_EXACT, MOST_FEATURES, MOST_SEAT_USES
from muster_entitlements.handlers.snapshots import GRANTED_PERCENT
from muster_runtime.database.outbox import EVENT_BYTES

AT = datetime(2025, 8, 6, 12, 30, 15, 123456, UTC)


def test_a_record_has_room_for_the_windows_and_the_use_of_the_largest_catalog() -> None:
    phase = AccessPhase(starts_at=AT, mode=AccessMode.UNLIMITED, monthly_quota=MOST_SEAT_USES)
    terms = QuotaTerms(limit=MOST_EXACT, enforced=False, per=QuotaScope.AGENCY)
    keys = [f"{number:x<{LONGEST_KEY}}" for number in range(MOST_FEATURES)]
    record = AgencyAccess(
        agency_id="A" * 20,
        revision=MOST_EXACT,
        generation=MOST_SEAT_USES,
        starts_at=AT,
        ends_at=AT,
        suspended=False,
        withdrawn_at=AT,
        ended=False,
        cap=MOST_SEAT_USES,
        features=[
            FeatureTimeline(feature=f"f{key[1:]}", phases=[phase] * 3, quota=terms, seat_days=36_500) for key in keys
        ],
        quotas=[
            QuotaUse(
                feature=f"f{key[1:]}",
                used=MOST_EXACT,
                quota=MOST_EXACT,
                charged=MOST_EXACT,
                period_starts_at=AT,
                period_ends_at=AT + timedelta(days=31),
            )
            for key in keys
        ],
    )
    assert len(encode(record) or b"") * 100 <= EVENT_BYTES * (100 - GRANTED_PERCENT)

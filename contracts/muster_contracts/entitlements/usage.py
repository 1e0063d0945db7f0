"""Events of use: reported to Muster, counted above a quota or a threshold of one, and granted beyond one."""

from typing import ClassVar

from pydantic import Field

from muster_contracts.entitlements.features import Feature, FeatureFact
from muster_contracts.entitlements.seats import SeatId
from muster_contracts.event import Event, event
from muster_contracts.types import Instant, SubjectRef


@event
class FeatureUsed(Event):
    """A person used a feature. Systems outside Muster report it, and entitlements counts it.

    Emitted by producers outside Muster, in either mode of CloudEvents' Kafka binding, one event per record. An event
    counts once per agency, by its `source`, `id`, and day (UTC) of its `time`, which is when the feature was used. A
    correlation, an epoch, and a sequence may be left out, and are ignored.
    """

    event_type: ClassVar[str] = "muster.entitlements.FeatureUsed.v1"
    topic: ClassVar[str] = "muster.entitlements.usage"
    emitted: ClassVar[bool] = False

    subject_ref: SubjectRef
    feature: Feature
    amount: int = Field(default=1, ge=1, le=1_000_000, description="Uses, a whole number.", examples=[1, 250])


@event
class QuotaGranted(FeatureFact):
    """Uses beyond a quota were granted to one person, or to all people of the agency, who share them.

    Emitted once per quota grant. A quota grant cannot be revoked.
    """

    event_type: ClassVar[str] = "muster.entitlements.QuotaGranted.v1"

    grant_id: str = Field(description="The quota grant.", examples=["qgr_01987b3e0000700080000000000000cd"])
    subject_ref: SubjectRef | None = Field(
        default=None,
        description="Pseudonymous reference to the person; null if the uses are for all people of the agency.",
        examples=["sub_01987b3e0000700080000000000000bb", None],
    )
    amount: int = Field(ge=1, description="Uses granted.", examples=[100])
    priority: int = Field(description="Of several quota grants, the lowest is spent first.", examples=[0, -10])
    starts_at: Instant = Field(description="Inclusive start, UTC.", examples=["2025-11-01T00:00:00Z"])
    ends_at: Instant | None = Field(
        default=None, description="Exclusive end, UTC; null for none.", examples=["2025-12-01T00:00:00Z", None]
    )


class _QuotaFact(Event):
    topic: ClassVar[str] = "muster.entitlements.feature"

    feature: Feature
    used: int = Field(ge=0, description="Uses in the period so far.", examples=[4000, 5001])
    charged: int | None = Field(
        default=None,
        ge=0,
        description="The uses that no grant covers. They count toward the quota, even those above it.",
        examples=[4000, 5001],
    )
    quota: int = Field(ge=0, description="Uses allowed in the period.", examples=[5000, 0])
    period_starts_at: Instant = Field(
        description="Inclusive start of the period, UTC.", examples=["2025-11-01T00:00:00Z"]
    )
    period_ends_at: Instant = Field(description="Exclusive end of the period, UTC.", examples=["2025-12-01T00:00:00Z"])


@event
class AgencyQuotaThresholdCrossed(_QuotaFact):
    """The use of a metered feature by all people of an agency crossed a threshold of the agency's quota.

    Emitted at most once per agency, feature, period, and threshold.
    """

    event_type: ClassVar[str] = "muster.entitlements.AgencyQuotaThresholdCrossed.v1"

    threshold_percent: int = Field(ge=1, le=100, description="The threshold, in percent.", examples=[80, 100])


@event
class QuotaExceeded(_QuotaFact):
    """Use exceeded a quota: it was reported after the fact, or the quota is not enforced.

    Emitted at most once per person, or agency, and feature and period.
    """

    event_type: ClassVar[str] = "muster.entitlements.QuotaExceeded.v1"

    subject_ref: SubjectRef | None = Field(
        default=None,
        description="Pseudonymous reference to the person; null if the quota is the whole agency's.",
        examples=["sub_01987b3e0000700080000000000000bb", None],
    )
    excess: int = Field(
        ge=1, description="Uses in the period so far that neither the quota nor a grant covers.", examples=[3]
    )
    enforced: bool = Field(
        description="Whether the quota refuses use above it, so that only reported use can exceed it.",
        examples=[True, False],
    )
    seat_id: SeatId | None = Field(
        default=None,
        description="The person's seat; null if they have none, or if the quota is the whole agency's.",
        examples=["seat_01987b3e0000700080000000000000ba", None],
    )

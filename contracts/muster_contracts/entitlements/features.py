"""Events of features: grants, quotas, and access snapshots."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from muster_contracts.entitlements.seats import SeatId
from muster_contracts.event import Event, event
from muster_contracts.types import Instant, Open, SubjectRef

Feature = Annotated[str, Field(description="The feature's key in the feature catalog.", examples=["deep-research"])]
GrantId = Annotated[
    str, Field(description="The grant of a feature.", examples=["grt_01987b3e0000700080000000000000cb"])
]


class AccessMode(StrEnum):
    """How a feature may be used, within a window or after it."""

    UNLIMITED = "unlimited"
    QUOTA = "quota"
    NONE = "none"


class ScopeState(StrEnum):
    """Whether an agency, or a person's seat, has any access."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    ENDED = "ended"


AccessAfter = Annotated[
    Open[AccessMode], Field(description="Access after the window.", examples=["quota", "read_only"])
]
MonthlyQuotaAfter = Annotated[
    int | None,
    Field(
        ge=0,
        description="Uses per seat and calendar month after the window, if the access is a quota.",
        examples=[25, None],
    ),
]


class FeatureFact(Event):
    """What every event of a feature has."""

    topic: ClassVar[str] = "muster.entitlements.feature"

    feature: Feature


@event
class EntitlementGranted(FeatureFact):
    """A feature was granted outside the catalog's windows, to the agency or to one person.

    Emitted once per grant.
    """

    event_type: ClassVar[str] = "muster.entitlements.EntitlementGranted.v1"

    grant_id: GrantId
    subject_ref: SubjectRef | None = Field(
        default=None,
        description="Pseudonymous reference to the person; null if the grant covers every seat of the agency.",
        examples=["sub_01987b3e0000700080000000000000bb", None],
    )
    mode: Open[AccessMode] = Field(description="Access granted.", examples=["unlimited", "read_only"])
    starts_at: Instant = Field(description="Inclusive start, UTC.", examples=["2025-11-01T00:00:00Z"])
    ends_at: Instant | None = Field(
        default=None,
        description="Exclusive end, UTC; null for none.",
        examples=["2026-02-01T00:00:00Z", None],
    )
    monthly_quota: int | None = Field(
        default=None,
        ge=0,
        description="Uses per seat and calendar month, if the access is a quota.",
        examples=[None, 25],
    )
    reason: str = Field(default="", description="The reason.", examples=["pilot of the research office", ""])


@event
class EntitlementRevoked(FeatureFact):
    """A grant was revoked before its end.

    Emitted at most once per grant.
    """

    event_type: ClassVar[str] = "muster.entitlements.EntitlementRevoked.v1"

    grant_id: GrantId
    subject_ref: SubjectRef | None = Field(
        default=None,
        description="Pseudonymous reference to the person; null if the grant covered every seat of the agency.",
        examples=["sub_01987b3e0000700080000000000000bb", None],
    )
    reason: str = Field(description="The reason.", examples=["pilot ended", ""])
    revoked_at: Instant = Field(description="Time of the revocation, UTC.", examples=["2026-01-15T10:00:00Z"])


@event
class QuotaThresholdCrossed(FeatureFact):
    """A person's use of a metered feature crossed a threshold of its quota.

    Emitted at most once per person, feature, period, and threshold.
    """

    event_type: ClassVar[str] = "muster.entitlements.QuotaThresholdCrossed.v1"

    subject_ref: SubjectRef
    threshold_percent: int = Field(ge=1, le=100, description="The threshold, in percent.", examples=[80, 100])
    used: int = Field(ge=0, description="Uses in the period so far.", examples=[20, 25])
    charged: int | None = Field(
        default=None,
        ge=0,
        description="The uses that no grant covers. They count toward the quota, even those above it.",
        examples=[20, 25],
    )
    quota: int = Field(ge=1, description="Uses allowed in the period.", examples=[25])
    period_starts_at: Instant = Field(
        description="Inclusive start of the period, UTC.", examples=["2025-11-01T00:00:00Z"]
    )
    period_ends_at: Instant = Field(description="Exclusive end of the period, UTC.", examples=["2025-12-01T00:00:00Z"])
    seat_id: SeatId | None = Field(
        default=None,
        description="The person's seat; null if they have none.",
        examples=["seat_01987b3e0000700080000000000000ba", None],
    )


class FeatureAccess(BaseModel):
    """How one feature may be used, and until when."""

    model_config = ConfigDict(frozen=True)

    feature: Feature
    mode: Open[AccessMode] = Field(description="Access.", examples=["unlimited"])
    ends_at: Instant | None = Field(
        default=None, description="Exclusive end, UTC; null for none.", examples=["2025-10-05T00:00:00Z", None]
    )
    monthly_quota: int | None = Field(
        default=None,
        ge=0,
        description="Uses per seat and calendar month, if the access is a quota.",
        examples=[None, 25],
    )


@event
class EntitlementSnapshotPublished(Event):
    """All access of an agency, or a person's access beyond it. Only the latest record of a key counts.

    Never emitted: AgencyAccess and SubjectAccess took its place.
    """

    event_type: ClassVar[str] = "muster.entitlements.EntitlementSnapshotPublished.v1"
    topic: ClassVar[str] = "muster.entitlements.snapshot"
    emitted: ClassVar[bool] = False
    replaced_by: ClassVar[str | None] = "muster.entitlements.AgencyAccess.v1"

    scope_ref: str = Field(
        description="The agency or the person's reference, and the Kafka key of the record.",
        examples=["NASA", "sub_01987b3e0000700080000000000000bb"],
    )
    revision: int = Field(
        ge=1, description="Increases with each change; a check's answer includes it.", examples=[42, 1]
    )
    state: Open[ScopeState] = Field(description="Whether there is any access.", examples=["active", "merged"])
    features: list[FeatureAccess] = Field(
        description="Access by feature.",
        examples=[
            [
                {"feature": "frontier-models", "mode": "unlimited", "ends_at": "2026-08-06T00:00:00Z"},
                {"feature": "deep-research", "mode": "quota", "monthly_quota": 25},
            ],
            [],
        ],
    )

    @property
    def record_key(self) -> str:
        return self.scope_ref

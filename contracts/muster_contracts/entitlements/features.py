"""Events of features: windows, grants, quotas, and access snapshots."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

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


class _FeatureFact(Event):
    topic: ClassVar[str] = "muster.entitlements.feature"

    feature: Feature


class _WindowFact(_FeatureFact):
    window_id: str = Field(
        description="The window in which the feature is open.", examples=["win_01987b3e0000700080000000000000ca"]
    )


@event
class FeatureWindowOpened(_WindowFact):
    """A feature is open to an agency's seats within a half-open window.

    Emitted once per window.
    """

    event_type: ClassVar[str] = "muster.entitlements.FeatureWindowOpened.v1"

    mode: Open[AccessMode] = Field(description="Access within the window.", examples=["unlimited", "read_only"])
    starts_at: Instant = Field(description="Inclusive start, UTC.", examples=["2025-08-06T00:00:00Z"])
    ends_at: Instant = Field(description="Exclusive end, UTC.", examples=["2025-10-05T00:00:00Z"])
    mode_after: AccessAfter
    monthly_quota_after: MonthlyQuotaAfter = None


@event
class FeatureWindowExtended(_WindowFact):
    """A feature's window was extended.

    Emitted for each extension, before the previous end.
    """

    event_type: ClassVar[str] = "muster.entitlements.FeatureWindowExtended.v1"

    previous_ends_at: Instant = Field(description="The previous exclusive end, UTC.", examples=["2025-10-05T00:00:00Z"])
    ends_at: Instant = Field(description="The new exclusive end, UTC.", examples=["2025-11-04T00:00:00Z"])


@event
class FeatureWindowChanged(_WindowFact):
    """A feature's window changed otherwise than by a later end alone; it holds as this event says.

    Emitted for each such change, for example when a version of the catalog states another quota after the window.
    """

    event_type: ClassVar[str] = "muster.entitlements.FeatureWindowChanged.v1"

    mode: Open[AccessMode] = Field(description="Access within the window.", examples=["unlimited", "read_only"])
    starts_at: Instant = Field(description="Inclusive start, UTC.", examples=["2025-08-06T00:00:00Z"])
    ends_at: Instant = Field(description="Exclusive end, UTC.", examples=["2025-10-05T00:00:00Z"])
    mode_after: AccessAfter
    monthly_quota_after: MonthlyQuotaAfter = None


@event
class TrialEndingSoon(_WindowFact):
    """A trial window ends soon.

    Emitted once each 14, 7, and 1 days before the end; after an outage, an event that would be a day late or more is
    skipped.
    """

    event_type: ClassVar[str] = "muster.entitlements.TrialEndingSoon.v1"

    ends_at: Instant = Field(description="Exclusive end, UTC.", examples=["2025-10-05T00:00:00Z"])
    days_left: int = Field(ge=1, description="Days until the end.", examples=[14, 1])


@event
class TrialExpired(_WindowFact):
    """A trial window ended; the event's `time` is that exact instant.

    Emitted once per trial window.
    """

    event_type: ClassVar[str] = "muster.entitlements.TrialExpired.v1"

    expired_at: Instant = Field(description="End of the window, UTC.", examples=["2025-10-05T00:00:00Z"])
    mode_after: AccessAfter
    monthly_quota_after: MonthlyQuotaAfter = None


@event
class EntitlementGranted(_FeatureFact):
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
class EntitlementRevoked(_FeatureFact):
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
class QuotaThresholdCrossed(_FeatureFact):
    """A person's use of a metered feature crossed a threshold of its quota.

    Emitted at most once per person, feature, period, and threshold.
    """

    event_type: ClassVar[str] = "muster.entitlements.QuotaThresholdCrossed.v1"

    subject_ref: SubjectRef
    threshold_percent: int = Field(ge=1, le=100, description="The threshold, in percent.", examples=[80, 100])
    used: int = Field(ge=0, description="Uses in the period so far.", examples=[20, 25])
    quota: int = Field(ge=1, description="Uses allowed in the period.", examples=[25])
    period_starts_at: Instant = Field(
        description="Inclusive start of the period, UTC.", examples=["2025-11-01T00:00:00Z"]
    )
    period_ends_at: Instant = Field(description="Exclusive end of the period, UTC.", examples=["2025-12-01T00:00:00Z"])


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
    """All access of an agency, or a person's access beyond it. The latest record of a key is valid.

    Emitted by no version: AgencyAccess and SubjectAccess have taken its place.
    """

    event_type: ClassVar[str] = "muster.entitlements.EntitlementSnapshotPublished.v1"
    topic: ClassVar[str] = "muster.entitlements.snapshot"
    emitted: ClassVar[bool] = False

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

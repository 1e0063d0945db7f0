"""Snapshots: the present access of each agency and person, whole, on a compacted topic for those who hold a copy."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from muster_contracts.entitlements.catalog import QuotaScope
from muster_contracts.entitlements.features import AccessMode, Feature
from muster_contracts.event import Erasure, Event, event
from muster_contracts.types import Instant, Open, SubjectRef

_Revision = Annotated[
    int,
    Field(
        ge=1,
        description="The revision of the agency's entitlements at that moment. A check's answer has the newest one.",
        examples=[42, 1],
    ),
]


class SeatStanding(StrEnum):
    """The state of a seat that a person has. With a seat that is assigned or active, they can use features."""

    RESERVED = "reserved"
    INVITED = "invited"
    ASSIGNED = "assigned"
    ACTIVE = "active"
    SUSPENDED = "suspended"


class AccessPhase(BaseModel):
    """How a feature may be used from an instant on, until the next phase starts."""

    model_config = ConfigDict(frozen=True)

    starts_at: Instant = Field(description="Inclusive start, UTC.", examples=["2025-08-06T00:00:00Z"])
    mode: Open[AccessMode] = Field(description="Access.", examples=["unlimited"])
    monthly_quota: int | None = Field(
        default=None,
        ge=0,
        description="Uses per seat and calendar month, if the access is a quota.",
        examples=[None, 25],
    )


class QuotaTerms(BaseModel):
    """The quota of a feature, in the phases whose access is a quota."""

    model_config = ConfigDict(frozen=True)

    limit: int = Field(ge=0, description="Uses in a period.", examples=[25, 0])
    enforced: bool = Field(description="Whether uses above it are refused.", examples=[True, False])
    per: Open[QuotaScope] = Field(
        default=QuotaScope.SEAT,
        description="Whose uses count together: each person's, which their own record has, or all of the agency's.",
        examples=["seat", "agency"],
    )


class FeatureTimeline(BaseModel):
    """The phases of one feature, which are known in advance. Before the first one it is closed."""

    model_config = ConfigDict(frozen=True)

    feature: Feature
    phases: list[AccessPhase] = Field(
        description="In the order of their starts; of two with the same start, the later one applies.",
        examples=[[{"starts_at": "2025-08-06T00:00:00Z", "mode": "unlimited"}]],
    )
    quota: QuotaTerms | None = Field(
        default=None,
        description="The quota in the phases whose access is one; null if none is.",
        examples=[{"limit": 25, "enforced": True, "per": "seat"}, None],
    )
    seat_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="If each seat has a trial of its own: the last phase begins for a seat this many days after its "
        "trial began, or at its own start if that is earlier, but not before the first phase.",
        examples=[None, 60],
    )


class GrantedAccess(BaseModel):
    """A grant of a feature, which replaces the feature's phases while it lasts."""

    model_config = ConfigDict(frozen=True)

    feature: Feature
    mode: Open[AccessMode] = Field(description="Access.", examples=["unlimited"])
    monthly_quota: int | None = Field(
        default=None,
        ge=0,
        description="Uses per seat and calendar month, if the access is a quota.",
        examples=[None, 25],
    )
    starts_at: Instant = Field(description="Inclusive start, UTC.", examples=["2025-11-01T00:00:00Z"])
    ends_at: Instant | None = Field(
        default=None, description="Exclusive end, UTC; null for none.", examples=["2026-02-01T00:00:00Z", None]
    )


class QuotaUse(BaseModel):
    """How much of a quota is used: as of the last threshold that was crossed in a period, so at least that much."""

    model_config = ConfigDict(frozen=True)

    feature: Feature
    used: int = Field(ge=0, description="Uses in the period.", examples=[20, 25])
    quota: int = Field(ge=0, description="Uses allowed in the period, without grants.", examples=[25, 0])
    charged: int = Field(
        default=0,
        ge=0,
        description="The uses that no grant covers, including those above the quota.",
        examples=[20, 25],
    )
    period_starts_at: Instant = Field(
        description="Inclusive start of the period, UTC.", examples=["2025-11-01T00:00:00Z"]
    )
    period_ends_at: Instant = Field(
        description="Exclusive end of the period, UTC; from then on, this does not apply.",
        examples=["2025-12-01T00:00:00Z"],
    )


_USE_EXAMPLES = [
    [],
    [
        {
            "feature": "deep-research",
            "used": 20,
            "quota": 25,
            "charged": 20,
            "period_starts_at": "2025-11-01T00:00:00Z",
            "period_ends_at": "2025-12-01T00:00:00Z",
        }
    ],
]


class FurtherUses(BaseModel):
    """A grant of uses beyond a feature's quota, of which some are left."""

    model_config = ConfigDict(frozen=True)

    feature: Feature
    starts_at: Instant = Field(description="Inclusive start, UTC.", examples=["2025-11-01T00:00:00Z"])
    ends_at: Instant | None = Field(
        default=None, description="Exclusive end, UTC; null for none.", examples=["2026-02-01T00:00:00Z", None]
    )


_FURTHER_EXAMPLES = [[], [{"feature": "deep-research", "starts_at": "2025-11-01T00:00:00Z", "ends_at": None}]]

_GRANT_EXAMPLES = [
    [
        {
            "feature": "deep-research",
            "mode": "unlimited",
            "starts_at": "2025-11-01T00:00:00Z",
            "ends_at": "2026-02-01T00:00:00Z",
        }
    ],
    [],
]


@event
class AgencyAccess(Event):
    """All access of an agency: its term, and what its features allow in each phase. Only the latest record counts.

    Emitted on each change, on a compacted topic, so that reading the topic once fills a local copy.
    """

    event_type: ClassVar[str] = "muster.entitlements.AgencyAccess.v1"
    topic: ClassVar[str] = "muster.entitlements.snapshot"

    revision: _Revision
    generation: int = Field(
        ge=1,
        description="Increases when all seats are taken back. Nobody holds a seat of another generation.",
        examples=[1, 2],
    )
    starts_at: Instant = Field(description="Inclusive start of the term, UTC.", examples=["2025-08-06T00:00:00Z"])
    ends_at: Instant = Field(description="Exclusive end of the term, UTC.", examples=["2026-08-06T00:00:00Z"])
    suspended: bool = Field(description="Whether seats cannot be used for now.", examples=[False, True])
    withdrawn_at: Instant | None = Field(
        default=None,
        description="When the agency left the program, UTC; null if it has not.",
        examples=[None, "2026-01-15T10:00:00Z"],
    )
    ended: bool = Field(
        default=False, description="Whether the term was completed and no other follows.", examples=[False]
    )
    cap: int = Field(ge=0, description="The agreed number of seats.", examples=[17973, 0])
    features: list[FeatureTimeline] = Field(
        description="The features that have a window.",
        examples=[
            [
                {
                    "feature": "deep-research",
                    "phases": [
                        {"starts_at": "2025-08-06T00:00:00Z", "mode": "unlimited"},
                        {"starts_at": "2025-10-05T00:00:00Z", "mode": "quota", "monthly_quota": 25},
                    ],
                },
            ],
            [],
        ],
    )
    grants: list[GrantedAccess] = Field(
        default_factory=list,
        description="What is granted to every seat of the agency. A person's own grants take precedence.",
        examples=_GRANT_EXAMPLES,
    )
    quotas: list[QuotaUse] = Field(
        default_factory=list,
        description="What all people together have used of quotas that are the whole agency's.",
        examples=_USE_EXAMPLES,
    )
    further_uses: list[FurtherUses] = Field(
        default_factory=list,
        description="Uses beyond quotas that all people of the agency share.",
        examples=_FURTHER_EXAMPLES,
    )


@event
class SubjectAccess(Event):
    """What one person has: their seat and grants. Only the latest record counts.

    Their agency's record says what a seat gives. Emitted on each change, on a compacted topic. One agency's records are
    in one partition, in order.
    """

    event_type: ClassVar[str] = "muster.entitlements.SubjectAccess.v1"
    topic: ClassVar[str] = "muster.entitlements.snapshot"

    subject_ref: SubjectRef
    revision: _Revision
    generation: int = Field(
        ge=1, description="The seat's generation; if it is not the agency's, nobody holds the seat.", examples=[1, 2]
    )
    seat: Open[SeatStanding] = Field(description="The state of the seat.", examples=["assigned", "on_leave"])
    trial_began_at: Instant | None = Field(
        default=None,
        description="When the trials of features with `seat_days` began for this seat, UTC; null if none has.",
        examples=[None, "2025-08-20T14:03:00Z"],
    )
    grants: list[GrantedAccess] = Field(
        default_factory=list, description="What is granted to this person alone.", examples=_GRANT_EXAMPLES
    )
    quotas: list[QuotaUse] = Field(
        default_factory=list, description="What this person has used of their quotas.", examples=_USE_EXAMPLES
    )
    further_uses: list[FurtherUses] = Field(
        default_factory=list, description="This person's uses beyond quotas.", examples=_FURTHER_EXAMPLES
    )

    @property
    def record_key(self) -> str:
        return self.subject_ref


@event
class SubjectAccessErased(Erasure):
    """A person no longer has a seat, and their record is erased.

    Emitted as a tombstone, which removes the person's earlier records.
    """

    event_type: ClassVar[str] = "muster.entitlements.SubjectAccessErased.v1"
    topic: ClassVar[str] = "muster.entitlements.snapshot"

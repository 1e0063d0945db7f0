"""Events of the entitlements service: seats, feature windows, grants, quotas and snapshots."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from muster_contracts.event import Erasure, Event, event
from muster_contracts.types import Instant, Open, SubjectRef

SeatId = Annotated[str, Field(description="The seat.", examples=["seat_01987b3e0000700080000000000000ba"])]
Feature = Annotated[str, Field(description="The feature, as in the catalogue of features.", examples=["deep-research"])]
GrantId = Annotated[
    str, Field(description="The grant of a feature.", examples=["grt_01987b3e0000700080000000000000cb"])
]


class SeatRevocationReason(StrEnum):
    """Why a seat was taken back."""

    REQUESTED = "requested"
    AGENCY_WITHDRAWN = "agency_withdrawn"
    TERM_ENDED = "term_ended"
    INACTIVITY = "inactivity"


class SeatBatchKind(StrEnum):
    """What a file asks for the people that it lists."""

    IMPORT = "import"
    SUSPENSION = "suspension"
    REVOCATION = "revocation"
    TRANSFER = "transfer"


class AccessMode(StrEnum):
    """How a feature may be used within, or after, a window."""

    UNLIMITED = "unlimited"
    QUOTA = "quota"
    NONE = "none"


class ScopeState(StrEnum):
    """Whether an agency, or a person's seat, may use anything at all."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    ENDED = "ended"


AccessAfter = Annotated[
    Open[AccessMode], Field(description="Access declared for after the window.", examples=["quota", "read_only"])
]
MonthlyQuotaAfter = Annotated[
    int | None,
    Field(ge=0, description="Uses per seat and calendar month after the window, when a quota.", examples=[25, None]),
]


class _SeatFact(Event):
    topic: ClassVar[str] = "muster.entitlements.seat"


class _SeatOfPerson(_SeatFact):
    seat_id: SeatId
    subject_ref: SubjectRef


@event
class SeatPoolResized(_SeatFact):
    """An agency's agreed cap of seats changed.

    Emitted when the cap changes after the pool was opened.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatPoolResized.v1"

    previous_cap: int = Field(ge=0, description="Seats agreed before.", examples=[17973, 0])
    cap: int = Field(ge=0, description="Seats agreed now; never fewer than are in use.", examples=[20000, 0])
    in_use: int = Field(ge=0, description="Seats held at that moment.", examples=[12045, 0])


@event
class SeatReserved(_SeatOfPerson):
    """A seat is kept for a person who does not hold it yet.

    Emitted when a seat waits for a condition, such as a training.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatReserved.v1"

    reserved_until: Instant | None = Field(
        default=None,
        description="The instant, UTC, at which the reservation ends by itself; null for none.",
        examples=["2025-10-06T00:00:00Z", None],
    )


@event
class SeatInvited(_SeatOfPerson):
    """A person was invited to take the seat that is reserved for them.

    Emitted for each invitation; the latest one of a seat holds.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatInvited.v1"

    expires_at: Instant = Field(
        description="The instant, UTC, from which the invitation is void.", examples=["2025-08-20T00:00:00Z"]
    )


@event
class SeatInvitationExpired(_SeatOfPerson):
    """An invitation was not taken up in time; the seat stays reserved. `time` of the event is that very instant.

    Emitted once for each invitation that expires.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatInvitationExpired.v1"


@event
class SeatAssigned(_SeatOfPerson):
    """A person holds a seat.

    Emitted once for each seat, when it is assigned.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatAssigned.v1"


@event
class SeatActivated(_SeatOfPerson):
    """The person has used the seat for the first time.

    Emitted at most once for each person who holds it.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatActivated.v1"


@event
class SeatSuspended(_SeatOfPerson):
    """The person keeps the seat but may not use it for now.

    Emitted when one seat is suspended; an agency's suspension is an event of the agency alone.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatSuspended.v1"

    reason: str = Field(description="Why.", examples=["training_expired", ""])


@event
class SeatReinstated(_SeatOfPerson):
    """The person may use a suspended seat again.

    Emitted once for each end of a seat's suspension.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatReinstated.v1"


@event
class SeatIdleWarned(_SeatOfPerson):
    """A seat has not been used for as long as its agency allows.

    Emitted once, until the seat is used; unless it is, the seat is revoked.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatIdleWarned.v1"

    idle_days: int = Field(ge=1, description="Days without use.", examples=[60, 1])
    reclaim_at: Instant = Field(
        description="The instant, UTC, at which the seat is revoked unless it is used.",
        examples=["2025-11-04T00:00:00Z"],
    )


@event
class SeatRevoked(_SeatOfPerson):
    """The person no longer holds the seat; it is free for another.

    Emitted at most once for each seat.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatRevoked.v1"

    reason: Open[SeatRevocationReason] = Field(
        description="Why it was taken back.", examples=["requested", "inactivity"]
    )


@event
class SeatTransferred(_SeatOfPerson):
    """A seat passed from one person to another within the agency.

    Emitted once for each transfer; `subject_ref` holds the seat from then on.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatTransferred.v1"

    from_subject_ref: SubjectRef = Field(
        description="Pseudonymous reference to the person who held it before.",
        examples=["sub_01987b3e0000700080000000000000bc"],
    )


@event
class SeatBatchCompleted(_SeatFact):
    """A file of seats was worked through.

    Emitted once for each file, after the events of its seats.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatBatchCompleted.v1"

    batch_id: str = Field(description="The work on the file.", examples=["bat_01987b3e0000700080000000000000bd"])
    rows: int = Field(ge=0, description="Rows read.", examples=[10000, 0])
    assigned: int = Field(ge=0, description="Rows that made a seat.", examples=[9950, 0])
    already_held: int = Field(ge=0, description="Rows that changed nothing: all was so before.", examples=[20, 0])
    refused: int = Field(ge=0, description="Rows refused.", examples=[30, 0])
    kind: Open[SeatBatchKind] = Field(
        default=SeatBatchKind.IMPORT, description="What the file asked for.", examples=["import", "reinstatement"]
    )
    changed: int = Field(
        default=0, ge=0, description="Rows that suspended, revoked or transferred a seat.", examples=[0]
    )


@event
class SeatLimitReached(_SeatFact):
    """Seats were refused because every seat of the agreed cap is in use.

    Emitted when a request is refused at the cap, and then not again until a seat becomes free.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatLimitReached.v1"

    cap: int = Field(ge=0, description="Seats agreed.", examples=[17973, 0])
    in_use: int = Field(ge=0, description="Seats held when the limit was met.", examples=[17973, 0])
    refused: int = Field(ge=1, description="Seats asked for in vain.", examples=[27, 1])


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

    Emitted once for each window.
    """

    event_type: ClassVar[str] = "muster.entitlements.FeatureWindowOpened.v1"

    mode: Open[AccessMode] = Field(description="Access within the window.", examples=["unlimited", "read_only"])
    starts_at: Instant = Field(description="Inclusive start, UTC.", examples=["2025-08-06T00:00:00Z"])
    ends_at: Instant = Field(description="Exclusive end, UTC.", examples=["2025-10-05T00:00:00Z"])
    mode_after: AccessAfter
    monthly_quota_after: MonthlyQuotaAfter = None


@event
class FeatureWindowExtended(_WindowFact):
    """A feature's window ends later than was said before.

    Emitted for each extension, before the earlier end is reached.
    """

    event_type: ClassVar[str] = "muster.entitlements.FeatureWindowExtended.v1"

    previous_ends_at: Instant = Field(description="The earlier exclusive end, UTC.", examples=["2025-10-05T00:00:00Z"])
    ends_at: Instant = Field(description="The exclusive end from now on, UTC.", examples=["2025-11-04T00:00:00Z"])


@event
class TrialEndingSoon(_WindowFact):
    """A trial window ends within the stated number of days.

    Emitted 14, 7 and 1 days before the end, each once.
    """

    event_type: ClassVar[str] = "muster.entitlements.TrialEndingSoon.v1"

    ends_at: Instant = Field(description="Exclusive end, UTC.", examples=["2025-10-05T00:00:00Z"])
    days_left: int = Field(ge=1, description="Days until the end.", examples=[14, 1])


@event
class TrialExpired(_WindowFact):
    """A trial window has ended; `time` of the event is that very instant.

    Emitted once for each trial window.
    """

    event_type: ClassVar[str] = "muster.entitlements.TrialExpired.v1"

    expired_at: Instant = Field(description="The instant of the end, UTC.", examples=["2025-10-05T00:00:00Z"])
    mode_after: AccessAfter
    monthly_quota_after: MonthlyQuotaAfter = None


@event
class EntitlementGranted(_FeatureFact):
    """A feature was granted beside the windows of the catalogue: to the agency, or to one person.

    Emitted once for each grant.
    """

    event_type: ClassVar[str] = "muster.entitlements.EntitlementGranted.v1"
    emitted: ClassVar[bool] = False

    grant_id: GrantId
    subject_ref: SubjectRef | None = Field(
        default=None,
        description="Pseudonymous reference to the person; null when every seat of the agency has it.",
        examples=["sub_01987b3e0000700080000000000000bb", None],
    )
    mode: Open[AccessMode] = Field(description="Access granted.", examples=["unlimited", "read_only"])
    starts_at: Instant = Field(description="Inclusive start, UTC.", examples=["2025-11-01T00:00:00Z"])
    ends_at: Instant | None = Field(
        default=None,
        description="Exclusive end, UTC; null for none.",
        examples=["2026-02-01T00:00:00Z", None],
    )


@event
class EntitlementRevoked(_FeatureFact):
    """A grant was taken back before its end.

    Emitted at most once for each grant.
    """

    event_type: ClassVar[str] = "muster.entitlements.EntitlementRevoked.v1"
    emitted: ClassVar[bool] = False

    grant_id: GrantId
    subject_ref: SubjectRef | None = Field(
        default=None,
        description="Pseudonymous reference to the person; null when it was the agency's.",
        examples=["sub_01987b3e0000700080000000000000bb", None],
    )
    reason: str = Field(description="Why.", examples=["pilot ended", ""])
    revoked_at: Instant = Field(description="Since when, UTC.", examples=["2026-01-15T10:00:00Z"])


@event
class QuotaThresholdCrossed(_FeatureFact):
    """Use of a metered feature passed a share of its quota.

    Emitted at most once for each person, feature, month and threshold.
    """

    event_type: ClassVar[str] = "muster.entitlements.QuotaThresholdCrossed.v1"
    emitted: ClassVar[bool] = False

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
        default=None, ge=0, description="Uses per seat and calendar month, when a quota.", examples=[None, 25]
    )


@event
class EntitlementSnapshotPublished(Event):
    """The whole access of an agency, or what one person has beyond it. The latest record of a key holds.

    Emitted whenever it changes, on a compacted topic, so that a local cache is filled by reading the topic once.
    """

    event_type: ClassVar[str] = "muster.entitlements.EntitlementSnapshotPublished.v1"
    topic: ClassVar[str] = "muster.entitlements.snapshot"
    emitted: ClassVar[bool] = False

    scope_ref: str = Field(
        description="What it is of, and the Kafka key of the record: the agency, or the reference to a person.",
        examples=["NASA", "sub_01987b3e0000700080000000000000bb"],
    )
    revision: int = Field(ge=1, description="Grows with each change; a check's answer carries it.", examples=[42, 1])
    state: Open[ScopeState] = Field(description="Whether anything may be used at all.", examples=["active", "merged"])
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


@event
class PersonRecorded(Event):
    """Who a subject reference is. Personal data: on the restricted directory topic only.

    Emitted when a person first holds a seat, and when the data change; the latest record holds.
    """

    event_type: ClassVar[str] = "muster.entitlements.PersonRecorded.v1"
    topic: ClassVar[str] = "muster.entitlements.directory"

    subject_ref: SubjectRef
    email: str = Field(description="The person's e-mail address.", examples=["grace.example@nasa.example"])
    name: str | None = Field(default=None, description="The person's name.", examples=["Grace Example", None])

    @property
    def record_key(self) -> str:
        return self.subject_ref


@event
class PersonErased(Erasure):
    """A person's data is erased.

    Emitted as a tombstone, which removes the person's earlier records.
    """

    event_type: ClassVar[str] = "muster.entitlements.PersonErased.v1"
    topic: ClassVar[str] = "muster.entitlements.directory"

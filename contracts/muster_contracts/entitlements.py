"""Events of the entitlements service: seats and feature windows."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from muster_contracts.event import Erasure, Event, event
from muster_contracts.types import Instant


class SeatRevocationReason(StrEnum):
    """Why a seat was taken back."""

    REQUESTED = "requested"
    AGENCY_WITHDRAWN = "agency_withdrawn"
    TERM_ENDED = "term_ended"


class AccessMode(StrEnum):
    """How a feature may be used within, or after, a window."""

    UNLIMITED = "unlimited"
    QUOTA = "quota"
    NONE = "none"


class _SeatFact(Event):
    topic: ClassVar[str] = "muster.entitlements.seat"


class _SeatOfPerson(_SeatFact):
    seat_id: str = Field(examples=["seat_01987b3e0000700080000000000000ba"])
    subject_ref: str = Field(
        description="Pseudonymous reference to the person.",
        examples=["sub_01987b3e0000700080000000000000bb"],
    )


@event
class SeatAssigned(_SeatOfPerson):
    """A person holds a seat."""

    event_type: ClassVar[str] = "muster.entitlements.SeatAssigned.v1"


@event
class SeatActivated(_SeatOfPerson):
    """The person has used the seat for the first time."""

    event_type: ClassVar[str] = "muster.entitlements.SeatActivated.v1"


@event
class SeatRevoked(_SeatOfPerson):
    """The person no longer holds the seat; it is free for another."""

    event_type: ClassVar[str] = "muster.entitlements.SeatRevoked.v1"

    reason: SeatRevocationReason | str


@event
class SeatLimitReached(_SeatFact):
    """Seats were refused because every seat of the agreed cap is in use."""

    event_type: ClassVar[str] = "muster.entitlements.SeatLimitReached.v1"

    cap: int = Field(ge=0, description="Seats agreed.")
    in_use: int = Field(ge=0, description="Seats held when the limit was met.")
    refused: int = Field(ge=1, description="Seats asked for in vain.")


class _FeatureFact(Event):
    topic: ClassVar[str] = "muster.entitlements.feature"

    window_id: str = Field(examples=["win_01987b3e0000700080000000000000ca"])
    feature: str = Field(examples=["deep-research"])


@event
class FeatureWindowOpened(_FeatureFact):
    """A feature is open to an agency's seats within a half-open window."""

    event_type: ClassVar[str] = "muster.entitlements.FeatureWindowOpened.v1"

    mode: AccessMode | str = Field(description="Access within the window.")
    starts_at: Instant = Field(description="Inclusive start.")
    ends_at: Instant = Field(description="Exclusive end.")
    mode_after: AccessMode | str = Field(description="Access declared for after the window.")
    monthly_quota_after: int | None = Field(
        default=None, ge=0, description="Uses per seat and month after the window, when a quota."
    )


@event
class FeatureWindowExtended(_FeatureFact):
    """A feature's window ends later than was said before."""

    event_type: ClassVar[str] = "muster.entitlements.FeatureWindowExtended.v1"

    previous_ends_at: Instant
    ends_at: Instant


@event
class TrialEndingSoon(_FeatureFact):
    """A trial window ends within the stated number of days."""

    event_type: ClassVar[str] = "muster.entitlements.TrialEndingSoon.v1"

    ends_at: Instant
    days_left: int = Field(ge=1, examples=[14])


@event
class TrialExpired(_FeatureFact):
    """A trial window has ended; `time` of the event is that very instant."""

    event_type: ClassVar[str] = "muster.entitlements.TrialExpired.v1"

    expired_at: Instant
    mode_after: AccessMode | str
    monthly_quota_after: int | None = Field(default=None, ge=0)


@event
class PersonRecorded(Event):
    """Who a subject reference is. Personal data: on the restricted directory topic only."""

    event_type: ClassVar[str] = "muster.entitlements.PersonRecorded.v1"
    topic: ClassVar[str] = "muster.entitlements.directory"

    subject_ref: str
    email: str
    name: str | None = None

    @property
    def record_key(self) -> str:
        return self.subject_ref


@event
class PersonErased(Erasure):
    """A person's data is erased."""

    event_type: ClassVar[str] = "muster.entitlements.PersonErased.v1"
    topic: ClassVar[str] = "muster.entitlements.directory"

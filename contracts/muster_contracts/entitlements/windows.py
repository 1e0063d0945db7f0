"""Events of features' windows: they open, are moved, and end, for an agency or for each seat."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from muster_contracts.entitlements.features import AccessAfter, AccessMode, FeatureFact, MonthlyQuotaAfter
from muster_contracts.entitlements.seats import SeatId
from muster_contracts.event import event
from muster_contracts.types import Instant, Open, SubjectRef


class _WindowFact(FeatureFact):
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
    """A feature's window changed by more than an extension; this event has its new terms.

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

    Emitted once on each of the days before the end that the feature's catalog entry states, by default 14, 7, and 1,
    and again if the end is moved; after an outage, an event that would be a day late or more is skipped.
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
    grace_ends_at: Instant | None = Field(
        default=None,
        description="Exclusive end of the grace that follows, for which the access continues, UTC; null for none.",
        examples=["2025-10-12T00:00:00Z", None],
    )


@event
class FeatureAccessChanged(_WindowFact):
    """The access to a feature changed after its window; the event's `time` is that exact instant.

    Emitted once per window, at the end of its grace. Where no grace follows, TrialExpired says the same.
    """

    event_type: ClassVar[str] = "muster.entitlements.FeatureAccessChanged.v1"

    changed_at: Instant = Field(description="The instant of the change, UTC.", examples=["2025-10-12T00:00:00Z"])
    previous_mode: Open[AccessMode] = Field(description="The access before.", examples=["unlimited", "read_only"])
    mode: Open[AccessMode] = Field(description="The access from then on.", examples=["none", "read_only"])
    monthly_quota: int | None = Field(
        default=None,
        ge=0,
        description="Uses per seat and calendar month, if the access is a quota.",
        examples=[25, None],
    )


@event
class SeatTrialExpired(_WindowFact):
    """A seat's trial, which its first activation began, ended; the event's `time` is that exact instant.

    Emitted once per held seat and feature, and again each time a version of the catalog lengthens a trial that was
    over.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatTrialExpired.v1"

    seat_id: SeatId
    subject_ref: SubjectRef
    expired_at: Instant = Field(description="End of the trial, UTC.", examples=["2025-10-05T14:03:00Z"])
    mode_after: AccessAfter
    monthly_quota_after: MonthlyQuotaAfter = None


class EndingSeats(BaseModel):
    """Seats whose trials end on one day."""

    model_config = ConfigDict(frozen=True)

    days_left: int = Field(ge=1, description="Days until that day.", examples=[14])
    seats: int = Field(ge=1, description="Seats whose trials end on that day.", examples=[120])


@event
class SeatTrialsEndingSoon(_WindowFact):
    """Trials of seats end soon.

    Emitted at most once per agency, feature, and day, UTC, with the seats of each of the days before the end that the
    feature's catalog entry states. After an outage, an event that would be a day late or more is skipped.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatTrialsEndingSoon.v1"

    ending: list[EndingSeats] = Field(
        min_length=1,
        description="The seats by the days left, most days first.",
        examples=[[{"days_left": 14, "seats": 120}, {"days_left": 1, "seats": 7}]],
    )

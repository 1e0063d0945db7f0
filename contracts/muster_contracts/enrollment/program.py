"""What the program does with an agency: training, and measured outcomes."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from muster_contracts.enrollment.agency import AgencyFact
from muster_contracts.event import event
from muster_contracts.types import Instant, Open

SessionId = Annotated[
    str,
    Field(description="The training session.", examples=["trn_01987b3e0000700080000000000000ae"]),
]


class TrainingFormat(StrEnum):
    """The format of a training session."""

    GUIDE = "guide"
    COACHING = "coaching"
    WORKSHOP = "workshop"
    HACKATHON = "hackathon"


@event
class TrainingSessionScheduled(AgencyFact):
    """A partner's training session was scheduled for an agency's people.

    Emitted once per session.
    """

    event_type: ClassVar[str] = "muster.enrollment.TrainingSessionScheduled.v1"
    emitted: ClassVar[bool] = False

    session_id: SessionId
    partner: str = Field(
        description="The organization that runs the session.", examples=["Slalom", "Boston Consulting Group"]
    )
    format: Open[TrainingFormat] = Field(description="Format of the session.", examples=["workshop", "webinar"])
    capacity: int = Field(ge=1, description="Number of places.", examples=[40, 1])
    starts_at: Instant = Field(description="Inclusive start, UTC.", examples=["2025-09-10T13:00:00Z"])
    ends_at: Instant = Field(description="Exclusive end, UTC.", examples=["2025-09-10T16:00:00Z"])


@event
class TrainingSessionCompleted(AgencyFact):
    """A training session took place.

    Emitted once per session, when the attendance is recorded.
    """

    event_type: ClassVar[str] = "muster.enrollment.TrainingSessionCompleted.v1"
    emitted: ClassVar[bool] = False

    session_id: SessionId
    registered: int = Field(ge=0, description="People who registered.", examples=[38, 0])
    attended: int = Field(ge=0, description="People who attended.", examples=[31, 0])
    completed_at: Instant = Field(description="End of the session, UTC.", examples=["2025-09-10T16:00:00Z"])


@event
class OutcomeReported(AgencyFact):
    """An agency reported the program's effect on its work in a period.

    Emitted for each report; a later report for the same period replaces the earlier one.
    """

    event_type: ClassVar[str] = "muster.enrollment.OutcomeReported.v1"
    emitted: ClassVar[bool] = False

    outcome_id: str = Field(description="The report.", examples=["out_01987b3e0000700080000000000000b0"])
    period_starts_at: Instant = Field(
        description="Inclusive start of the period, UTC.", examples=["2025-10-01T00:00:00Z"]
    )
    period_ends_at: Instant = Field(description="Exclusive end of the period, UTC.", examples=["2026-01-01T00:00:00Z"])
    minutes_saved_per_day: float = Field(
        ge=0, description="Mean minutes saved per person and working day.", examples=[95.0, 0]
    )
    share_positive: float = Field(
        ge=0, le=1, description="Share of the sample with a positive experience, from 0 to 1.", examples=[0.85, 1]
    )
    sample_size: int = Field(ge=1, description="People surveyed.", examples=[412, 1])
    method: str = Field(description="Method of measurement.", examples=["survey", "time-study"])

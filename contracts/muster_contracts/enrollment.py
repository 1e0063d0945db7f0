"""Events of the enrollment service: agencies, their authorization, training and outcomes."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from muster_contracts.event import Erasure, Event, event
from muster_contracts.types import AgencyId, Instant, Open, SubjectRef

EnrollmentId = Annotated[
    str,
    Field(description="The agency's enrolment.", examples=["enr_01987b3e0000700080000000000000aa"]),
]
AuthorizationId = Annotated[
    str,
    Field(
        description="The authorization to use (ATU) as Muster keeps it.",
        examples=["atu_01987b3e0000700080000000000000ab"],
    ),
]
AuthorizationNumber = Annotated[
    str, Field(description="The issuer's number of the authorization.", examples=["GSA-ATU-2025-0080"])
]
Product = Annotated[str, Field(description="The product that may be used.", examples=["frontier-assistant"])]
AgencyName = Annotated[
    str,
    Field(
        description="The agency's official title.",
        examples=["National Aeronautics and Space Administration", "Département de l’Épreuve — 試験 🛰"],
    ),
]
SessionId = Annotated[
    str,
    Field(description="The training session.", examples=["trn_01987b3e0000700080000000000000ae"]),
]


class SuspensionReason(StrEnum):
    """Why an agency is suspended."""

    ATU_LAPSED = "atu_lapsed"
    ATU_REVOKED = "atu_revoked"
    OPERATOR = "operator"


class TrainingFormat(StrEnum):
    """How a training is given."""

    GUIDE = "guide"
    COACHING = "coaching"
    WORKSHOP = "workshop"
    HACKATHON = "hackathon"


class _AgencyFact(Event):
    topic: ClassVar[str] = "muster.enrollment.agency"


@event
class AgencyEnrollmentSubmitted(_AgencyFact):
    """An agency has asked to join the programme.

    Emitted once for each enrolment, when it is submitted.
    """

    event_type: ClassVar[str] = "muster.enrollment.AgencyEnrollmentSubmitted.v1"

    enrollment_id: EnrollmentId
    agency_name: AgencyName
    seats_requested: int = Field(ge=1, description="Seats asked for.", examples=[17973, 1])
    requested_start: Instant = Field(
        description="When the agency would like to start, UTC.", examples=["2025-08-06T00:00:00Z"]
    )


@event
class AtuRecorded(_AgencyFact):
    """GSA's authorization to use a product was recorded for an agency.

    Emitted for each authorization, also for one that follows on another.
    """

    event_type: ClassVar[str] = "muster.enrollment.AtuRecorded.v1"

    authorization_id: AuthorizationId
    number: AuthorizationNumber
    issuer: str = Field(description="Who granted it.", examples=["GSA"])
    product: Product
    valid_from: Instant = Field(description="Inclusive start, UTC.", examples=["2025-08-01T00:00:00Z"])
    valid_until: Instant = Field(description="Exclusive end, UTC.", examples=["2026-09-01T00:00:00Z"])


@event
class AtuLapsed(_AgencyFact):
    """An authorization reached its end with no other in force.

    Emitted at the instant of its end; the agency is suspended with it.
    """

    event_type: ClassVar[str] = "muster.enrollment.AtuLapsed.v1"

    authorization_id: AuthorizationId
    number: AuthorizationNumber
    product: Product
    lapsed_at: Instant = Field(description="The instant of its end, UTC.", examples=["2026-02-01T00:00:00Z"])


@event
class DataUseTermsAccepted(_AgencyFact):
    """An agency accepted the data-use terms: business data is never used for training.

    Emitted for each acceptance, also of a later version.
    """

    event_type: ClassVar[str] = "muster.enrollment.DataUseTermsAccepted.v1"

    acceptance_id: str = Field(
        description="The acceptance.",
        examples=["acc_01987b3e0000700080000000000000ac"],
    )
    terms_version: str = Field(description="The version that was accepted.", examples=["2025-08"])
    signer_ref: str = Field(
        description="Pseudonymous reference to the signer.",
        examples=["con_01987b3e0000700080000000000000ad"],
    )
    evidence_sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the signed document, in lower-case hexadecimal.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "0" * 64],
    )
    accepted_at: Instant = Field(description="When it was accepted, UTC.", examples=["2025-08-04T15:00:00Z"])


@event
class AgencyEnrolled(_AgencyFact):
    """An agency is active: executive branch, authorized, and bound by the data-use terms.

    Emitted once for each enrolment, by the change that made the last of the three true.
    """

    event_type: ClassVar[str] = "muster.enrollment.AgencyEnrolled.v1"

    enrollment_id: EnrollmentId
    agency_name: AgencyName
    seats: int = Field(ge=1, description="The agreed cap of seats.", examples=[17973, 1])
    starts_at: Instant = Field(description="Inclusive start of the first term, UTC.", examples=["2025-08-06T00:00:00Z"])
    ends_at: Instant = Field(description="Exclusive end of the first term, UTC.", examples=["2026-08-06T00:00:00Z"])


@event
class AgencySuspended(_AgencyFact):
    """An active agency is suspended: its seats are kept, its use is refused.

    Emitted at the instant when the last authorization lapses or is revoked, or an operator suspends.
    """

    event_type: ClassVar[str] = "muster.enrollment.AgencySuspended.v1"

    enrollment_id: EnrollmentId
    reason: Open[SuspensionReason] = Field(
        description="Why; a reader tolerates new values.", examples=["atu_lapsed", "terms_outdated"]
    )
    suspended_at: Instant = Field(description="Since when, UTC.", examples=["2026-02-01T00:00:00Z"])


@event
class AgencyReinstated(_AgencyFact):
    """A suspended agency is active again.

    Emitted when an authorization is in force again, or an operator reinstates.
    """

    event_type: ClassVar[str] = "muster.enrollment.AgencyReinstated.v1"

    enrollment_id: EnrollmentId
    reinstated_at: Instant = Field(description="Since when, UTC.", examples=["2026-02-10T00:00:00Z"])


@event
class AgencyWithdrawn(_AgencyFact):
    """An agency left the programme before its term ended.

    Emitted once for each enrolment at most; its seats are revoked and its term ends.
    """

    event_type: ClassVar[str] = "muster.enrollment.AgencyWithdrawn.v1"

    enrollment_id: EnrollmentId
    reason: str = Field(description="Why, in the agency's words.", examples=["reorganized", ""])
    withdrawn_at: Instant = Field(description="Since when, UTC.", examples=["2026-03-01T00:00:00Z"])


@event
class AgencyMerged(_AgencyFact):
    """An agency was merged into another, which holds its enrolment and seats from then on.

    Emitted once, in the stream of the agency that ceases.
    """

    event_type: ClassVar[str] = "muster.enrollment.AgencyMerged.v1"
    emitted: ClassVar[bool] = False

    into_agency_id: AgencyId = Field(description="The agency that continues.", examples=["DOI"])
    seats_moved: int = Field(ge=0, description="Seats moved with it.", examples=[820, 0])
    merged_at: Instant = Field(description="Since when, UTC.", examples=["2026-04-01T00:00:00Z"])


@event
class CollaborationConsolidated(_AgencyFact):
    """An earlier collaboration was taken into the programme, with each person counted once.

    Emitted once for each collaboration.
    """

    event_type: ClassVar[str] = "muster.enrollment.CollaborationConsolidated.v1"
    emitted: ClassVar[bool] = False

    collaboration_id: str = Field(
        description="The earlier collaboration.", examples=["col_01987b3e0000700080000000000000af"]
    )
    enrollment_id: EnrollmentId
    seats_carried_over: int = Field(ge=0, description="Seats that moved into the programme.", examples=[1200, 0])
    seats_deduplicated: int = Field(
        ge=0, description="Seats not counted again: their holders had one in the programme.", examples=[35, 0]
    )
    consolidated_at: Instant = Field(description="Since when, UTC.", examples=["2025-08-20T00:00:00Z"])


@event
class TrainingSessionScheduled(_AgencyFact):
    """A training session of a partner was scheduled for an agency's people.

    Emitted once for each session.
    """

    event_type: ClassVar[str] = "muster.enrollment.TrainingSessionScheduled.v1"
    emitted: ClassVar[bool] = False

    session_id: SessionId
    partner: str = Field(description="The organization that gives it.", examples=["Slalom", "Boston Consulting Group"])
    format: Open[TrainingFormat] = Field(description="How it is given.", examples=["workshop", "webinar"])
    capacity: int = Field(ge=1, description="Places.", examples=[40, 1])
    starts_at: Instant = Field(description="Inclusive start, UTC.", examples=["2025-09-10T13:00:00Z"])
    ends_at: Instant = Field(description="Exclusive end, UTC.", examples=["2025-09-10T16:00:00Z"])


@event
class TrainingSessionCompleted(_AgencyFact):
    """A training session was held.

    Emitted once for each session, when the attendance is recorded.
    """

    event_type: ClassVar[str] = "muster.enrollment.TrainingSessionCompleted.v1"
    emitted: ClassVar[bool] = False

    session_id: SessionId
    registered: int = Field(ge=0, description="People registered.", examples=[38, 0])
    attended: int = Field(ge=0, description="People who were there.", examples=[31, 0])
    completed_at: Instant = Field(description="When it ended, UTC.", examples=["2025-09-10T16:00:00Z"])


@event
class OutcomeReported(_AgencyFact):
    """An agency reported what the programme did for its work in a period.

    Emitted for each report; a later report of the same period replaces the earlier one.
    """

    event_type: ClassVar[str] = "muster.enrollment.OutcomeReported.v1"
    emitted: ClassVar[bool] = False

    outcome_id: str = Field(description="The report.", examples=["out_01987b3e0000700080000000000000b0"])
    period_starts_at: Instant = Field(
        description="Inclusive start of the period, UTC.", examples=["2025-10-01T00:00:00Z"]
    )
    period_ends_at: Instant = Field(description="Exclusive end of the period, UTC.", examples=["2026-01-01T00:00:00Z"])
    minutes_saved_per_day: float = Field(
        ge=0, description="Mean minutes saved by a person on a working day.", examples=[95.0, 0]
    )
    share_positive: float = Field(
        ge=0, le=1, description="Share of the sample whose experience is positive, from 0 to 1.", examples=[0.85, 1]
    )
    sample_size: int = Field(ge=1, description="People asked.", examples=[412, 1])
    method: str = Field(description="How it was measured.", examples=["survey", "time-study"])


@event
class ContactRecorded(Event):
    """Who speaks for an agency. Personal data: on the restricted directory topic only.

    Emitted when a contact is recorded or changed; the latest record holds.
    """

    event_type: ClassVar[str] = "muster.enrollment.ContactRecorded.v1"
    topic: ClassVar[str] = "muster.enrollment.directory"

    subject_ref: SubjectRef = Field(examples=["con_01987b3e0000700080000000000000ad"])
    role: str = Field(description="What the contact does.", examples=["administrator"])
    name: str = Field(description="The contact's name.", examples=["Ada Example", "Zoë D’Épreuve"])
    email: str = Field(description="The contact's e-mail address.", examples=["ada.example@nasa.example"])

    @property
    def record_key(self) -> str:
        return self.subject_ref


@event
class ContactErased(Erasure):
    """A contact's personal data is erased.

    Emitted as a tombstone, which removes the contact's earlier records: when the contact is replaced, a day after
    the agency left the program, and 90 days after a signature that no enrollment followed.
    """

    event_type: ClassVar[str] = "muster.enrollment.ContactErased.v1"
    topic: ClassVar[str] = "muster.enrollment.directory"

"""An agency's enrollment and its authorization to use (ATU)."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from muster_contracts.event import Event, event
from muster_contracts.types import AgencyId, Instant, Open

EnrollmentId = Annotated[
    str,
    Field(description="The agency's enrollment.", examples=["enr_01987b3e0000700080000000000000aa"]),
]
AuthorizationId = Annotated[
    str,
    Field(
        description="The authorization to use (ATU) in Muster.",
        examples=["atu_01987b3e0000700080000000000000ab"],
    ),
]
AuthorizationNumber = Annotated[
    str, Field(description="The issuer's number for the authorization.", examples=["GSA-ATU-2025-0080"])
]
Product = Annotated[str, Field(description="The authorized product.", examples=["frontier-assistant"])]
AgencyName = Annotated[
    str,
    Field(
        description="The agency's official title.",
        examples=["National Aeronautics and Space Administration", "Département de l’Épreuve — 試験 🛰"],
    ),
]


class SuspensionReason(StrEnum):
    """Why an agency is suspended."""

    ATU_LAPSED = "atu_lapsed"
    ATU_REVOKED = "atu_revoked"
    OPERATOR = "operator"


class AgencyFact(Event):
    """A fact on the agency's stream."""

    topic: ClassVar[str] = "muster.enrollment.agency"


@event
class AgencyEnrollmentSubmitted(AgencyFact):
    """An agency asked to join the program.

    Emitted once per enrollment, when it is submitted.
    """

    event_type: ClassVar[str] = "muster.enrollment.AgencyEnrollmentSubmitted.v1"

    enrollment_id: EnrollmentId
    agency_name: AgencyName
    seats_requested: int = Field(ge=1, description="Seats requested.", examples=[17973, 1])
    requested_start: Instant = Field(description="Requested start, UTC.", examples=["2025-08-06T00:00:00Z"])


@event
class AtuRecorded(AgencyFact):
    """GSA's authorization to use a product was recorded for an agency.

    Emitted for each authorization, including one that follows another.
    """

    event_type: ClassVar[str] = "muster.enrollment.AtuRecorded.v1"

    authorization_id: AuthorizationId
    number: AuthorizationNumber
    issuer: str = Field(description="The issuer of the authorization.", examples=["GSA"])
    product: Product
    valid_from: Instant = Field(description="Inclusive start, UTC.", examples=["2025-08-01T00:00:00Z"])
    valid_until: Instant = Field(description="Exclusive end, UTC.", examples=["2026-09-01T00:00:00Z"])


@event
class AtuLapsed(AgencyFact):
    """An authorization ended and no other is in force.

    Emitted at the instant of its end; the agency is suspended at the same time.
    """

    event_type: ClassVar[str] = "muster.enrollment.AtuLapsed.v1"

    authorization_id: AuthorizationId
    number: AuthorizationNumber
    product: Product
    lapsed_at: Instant = Field(description="End of the authorization, UTC.", examples=["2026-02-01T00:00:00Z"])


@event
class DataUseTermsAccepted(AgencyFact):
    """An agency accepted the data-use terms: business data is never used for training.

    Emitted for each acceptance, including one of a later version.
    """

    event_type: ClassVar[str] = "muster.enrollment.DataUseTermsAccepted.v1"

    acceptance_id: str = Field(
        description="The acceptance.",
        examples=["acc_01987b3e0000700080000000000000ac"],
    )
    terms_version: str = Field(description="The accepted version.", examples=["2025-08"])
    signer_ref: str = Field(
        description="Pseudonymous reference to the signer.",
        examples=["con_01987b3e0000700080000000000000ad"],
    )
    evidence_sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 hash of the signed document, in lowercase hexadecimal.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "0" * 64],
    )
    accepted_at: Instant = Field(description="Time of the acceptance, UTC.", examples=["2025-08-04T15:00:00Z"])


@event
class AgencyEnrolled(AgencyFact):
    """An agency is active: it is in the executive branch, is authorized, and accepted the data-use terms.

    Emitted once per enrollment, by the change that meets the last of the three conditions.
    """

    event_type: ClassVar[str] = "muster.enrollment.AgencyEnrolled.v1"

    enrollment_id: EnrollmentId
    agency_name: AgencyName
    seats: int = Field(ge=1, description="The agreed seat cap.", examples=[17973, 1])
    starts_at: Instant = Field(description="Inclusive start of the first term, UTC.", examples=["2025-08-06T00:00:00Z"])
    ends_at: Instant = Field(description="Exclusive end of the first term, UTC.", examples=["2026-08-06T00:00:00Z"])
    time_zone: str | None = Field(
        default=None,
        description="The agency's time zone, by the IANA database. null: its days are those of UTC, and a trial lasts "
        "exactly its days from the start of the term.",
        examples=["America/New_York", None],
    )
    continues: list[AgencyId] = Field(
        default_factory=list,
        description="Agencies that this one continues, as after a split or a merger: what they have used of a trial "
        "counts as its own.",
        examples=[[], ["DOD", "DOD-USN"]],
    )


@event
class AgencySuspended(AgencyFact):
    """An active agency is suspended: its people keep their seats but cannot use them.

    Emitted when the last authorization lapses or is revoked, or when an operator suspends the agency.
    """

    event_type: ClassVar[str] = "muster.enrollment.AgencySuspended.v1"

    enrollment_id: EnrollmentId
    reason: Open[SuspensionReason] = Field(
        description="The reason; readers must accept new values.", examples=["atu_lapsed", "terms_outdated"]
    )
    suspended_at: Instant = Field(description="Start of the suspension, UTC.", examples=["2026-02-01T00:00:00Z"])


@event
class AgencyReinstated(AgencyFact):
    """A suspended agency is active again.

    Emitted when an authorization is in force again, or when an operator reinstates the agency.
    """

    event_type: ClassVar[str] = "muster.enrollment.AgencyReinstated.v1"

    enrollment_id: EnrollmentId
    reinstated_at: Instant = Field(description="Time of the reinstatement, UTC.", examples=["2026-02-10T00:00:00Z"])


@event
class AgencyWithdrawn(AgencyFact):
    """An agency left the program before its term ended.

    Emitted at most once per enrollment; its seats are revoked and its term ends.
    """

    event_type: ClassVar[str] = "muster.enrollment.AgencyWithdrawn.v1"

    enrollment_id: EnrollmentId
    reason: str = Field(description="The reason, in the agency's words.", examples=["reorganized", ""])
    withdrawn_at: Instant = Field(description="Time of the withdrawal, UTC.", examples=["2026-03-01T00:00:00Z"])


@event
class AgencyMerged(AgencyFact):
    """An agency was merged into another, which takes over its enrollment and seats.

    Emitted once, in the stream of the agency that ceases to exist.
    """

    event_type: ClassVar[str] = "muster.enrollment.AgencyMerged.v1"
    emitted: ClassVar[bool] = False

    into_agency_id: AgencyId = Field(description="The agency that continues.", examples=["DOI"])
    seats_moved: int = Field(ge=0, description="Seats moved to the other agency.", examples=[820, 0])
    merged_at: Instant = Field(description="Time of the merger, UTC.", examples=["2026-04-01T00:00:00Z"])


@event
class CollaborationConsolidated(AgencyFact):
    """An earlier collaboration was consolidated into the program, with each person counted once.

    Emitted once per collaboration.
    """

    event_type: ClassVar[str] = "muster.enrollment.CollaborationConsolidated.v1"
    emitted: ClassVar[bool] = False

    collaboration_id: str = Field(
        description="The earlier collaboration.", examples=["col_01987b3e0000700080000000000000af"]
    )
    enrollment_id: EnrollmentId
    seats_carried_over: int = Field(ge=0, description="Seats moved into the program.", examples=[1200, 0])
    seats_deduplicated: int = Field(
        ge=0,
        description="Seats not counted again, because their holders already had one in the program.",
        examples=[35, 0],
    )
    consolidated_at: Instant = Field(description="Time of the consolidation, UTC.", examples=["2025-08-20T00:00:00Z"])

"""Events of the enrollment service: agencies, their authorization and their enrolment."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from muster_contracts.event import Erasure, Event, event
from muster_contracts.types import Instant


class SuspensionReason(StrEnum):
    """Why an agency is suspended."""

    ATU_LAPSED = "atu_lapsed"
    ATU_REVOKED = "atu_revoked"
    OPERATOR = "operator"


class _AgencyFact(Event):
    topic: ClassVar[str] = "muster.enrollment.agency"


@event
class AgencyEnrollmentSubmitted(_AgencyFact):
    """An agency has asked to join the programme."""

    event_type: ClassVar[str] = "muster.enrollment.AgencyEnrollmentSubmitted.v1"

    enrollment_id: str = Field(examples=["enr_01987b3e0000700080000000000000aa"])
    agency_name: str = Field(examples=["National Aeronautics and Space Administration"])
    seats_requested: int = Field(ge=1, description="Seats asked for.", examples=[17973])
    requested_start: Instant


@event
class AtuRecorded(_AgencyFact):
    """GSA's authorization to use a product was recorded for an agency."""

    event_type: ClassVar[str] = "muster.enrollment.AtuRecorded.v1"

    authorization_id: str = Field(examples=["atu_01987b3e0000700080000000000000ab"])
    number: str = Field(description="The issuer's number.", examples=["GSA-ATU-2025-0080"])
    issuer: str = Field(examples=["GSA"])
    product: str = Field(examples=["frontier-assistant"])
    valid_from: Instant = Field(description="Inclusive start.")
    valid_until: Instant = Field(description="Exclusive end.")


@event
class AtuLapsed(_AgencyFact):
    """An authorization reached its end with no other in force."""

    event_type: ClassVar[str] = "muster.enrollment.AtuLapsed.v1"

    authorization_id: str
    number: str
    product: str
    lapsed_at: Instant


@event
class DataUseTermsAccepted(_AgencyFact):
    """An agency accepted the data-use terms: business data is never used for training."""

    event_type: ClassVar[str] = "muster.enrollment.DataUseTermsAccepted.v1"

    acceptance_id: str = Field(examples=["acc_01987b3e0000700080000000000000ac"])
    terms_version: str = Field(examples=["2025-08"])
    signer_ref: str = Field(description="Pseudonymous reference to the signer.")
    evidence_sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the signed document."
    )
    accepted_at: Instant


@event
class AgencyEnrolled(_AgencyFact):
    """An agency is active: executive branch, authorized, and bound by the data-use terms."""

    event_type: ClassVar[str] = "muster.enrollment.AgencyEnrolled.v1"

    enrollment_id: str
    agency_name: str
    seats: int = Field(ge=1, description="The agreed cap of seats.", examples=[17973])
    starts_at: Instant = Field(description="Inclusive start of the first term.")
    ends_at: Instant = Field(description="Exclusive end of the first term.")


@event
class AgencySuspended(_AgencyFact):
    """An active agency is suspended: its seats are kept, its use is refused."""

    event_type: ClassVar[str] = "muster.enrollment.AgencySuspended.v1"

    enrollment_id: str
    reason: SuspensionReason | str = Field(description="Open list; a reader tolerates new values.")
    suspended_at: Instant


@event
class AgencyReinstated(_AgencyFact):
    """A suspended agency is active again."""

    event_type: ClassVar[str] = "muster.enrollment.AgencyReinstated.v1"

    enrollment_id: str
    reinstated_at: Instant


@event
class AgencyWithdrawn(_AgencyFact):
    """An agency left the programme before its term ended."""

    event_type: ClassVar[str] = "muster.enrollment.AgencyWithdrawn.v1"

    enrollment_id: str
    reason: str = Field(examples=["reorganized"])
    withdrawn_at: Instant


@event
class ContactRecorded(Event):
    """Who speaks for an agency. Personal data: on the restricted directory topic only."""

    event_type: ClassVar[str] = "muster.enrollment.ContactRecorded.v1"
    topic: ClassVar[str] = "muster.enrollment.directory"

    subject_ref: str = Field(examples=["con_01987b3e0000700080000000000000ad"])
    role: str = Field(examples=["administrator"])
    name: str
    email: str

    @property
    def record_key(self) -> str:
        return self.subject_ref


@event
class ContactErased(Erasure):
    """A contact's personal data is erased."""

    event_type: ClassVar[str] = "muster.enrollment.ContactErased.v1"
    topic: ClassVar[str] = "muster.enrollment.directory"

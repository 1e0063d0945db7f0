"""What can be asked of the enrollment service."""

from dataclasses import dataclass
from datetime import datetime

from muster_enrollment.domain.facts import Person
from muster_enrollment.register import Entry


@dataclass(frozen=True, slots=True)
class ImportRegister:
    """Take over the agencies that a register file states, all of them or none."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class SubmitEnrollment:
    """Ask for an agency to join, with so many seats, from an instant on."""

    agency_id: str
    seats: int
    starts_at: datetime
    contact: Person


@dataclass(frozen=True, slots=True)
class RecordAtu:
    """Record an authorization to use a product, [valid_from, valid_until)."""

    agency_id: str
    number: str
    issuer: str
    product: str
    valid_from: datetime
    valid_until: datetime


@dataclass(frozen=True, slots=True)
class RevokeAtu:
    """Record that the issuer took an authorization back."""

    agency_id: str
    authorization_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class AcceptDataUseTerms:
    """Record that an agency accepted the data-use terms, with who signed and the SHA-256 of the document."""

    agency_id: str
    terms_version: str
    signer: Person
    evidence_sha256: str


@dataclass(frozen=True, slots=True)
class WithdrawAgency:
    """End an agency's part in the program; `expected_version` refuses it when the enrollment has changed since."""

    agency_id: str
    reason: str
    expected_version: int

"""The commands of enrollment."""

from dataclasses import dataclass
from datetime import datetime

from muster_enrollment.domain.facts import Person
from muster_enrollment.domain.register import Entry


@dataclass(frozen=True, slots=True)
class ImportRegister:
    """Import the agencies in a register file: all of them or none."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class SubmitEnrollment:
    """Request that an agency join the program with a number of seats from an instant on."""

    agency_id: str
    seats: int
    starts_at: datetime
    contact: Person
    time_zone: str | None = None
    continues: tuple[str, ...] = ()


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
    """Record that the issuer revoked an authorization."""

    agency_id: str
    authorization_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class AcceptDataUseTerms:
    """Record that an agency accepted the data-use terms, with the signer and the SHA-256 hash of the document."""

    agency_id: str
    terms_version: str
    signer: Person
    evidence_sha256: str


@dataclass(frozen=True, slots=True)
class WithdrawAgency:
    """Withdraw an agency from the program, if its enrollment is still at `expected_version`."""

    agency_id: str
    reason: str
    expected_version: int


@dataclass(frozen=True, slots=True)
class EraseLostContact:
    """Erase a contact that the directory topic has and a restore of this service lost."""

    agency_id: str
    contact_ref: str
    reason: str

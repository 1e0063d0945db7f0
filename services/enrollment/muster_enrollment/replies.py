"""The replies of the routes. People appear only as references."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel

from muster_contracts import Instant
from muster_contracts.enrollment import SuspensionReason
from muster_enrollment.domain.facts import Acceptance, Agency, Authorization, Branch, Condition, Standing, State


class RegisterImportReply(BaseModel):
    """How many agencies an import inserted or updated, and how many were already up to date."""

    imported: int
    unchanged: int


class ErasureReply(BaseModel):
    """The contact whose erasure was published."""

    agency_id: str
    contact_ref: str


class AgencyReply(BaseModel):
    """An agency in the register. `headcount` is null if it is unknown."""

    id: str
    name: str
    parent: str | None
    treasury_code: str | None
    domains: tuple[str, ...]
    headcount: int | None
    branch: Branch

    @classmethod
    def of(cls, agency: Agency) -> Self:
        return cls(
            id=agency.id,
            name=agency.name,
            parent=agency.parent,
            treasury_code=agency.treasury_code,
            domains=agency.domains,
            headcount=agency.headcount,
            branch=agency.branch,
        )


class EnrollmentReply(BaseModel):
    """An agency's latest enrollment. Before the first one is submitted, it is a draft with only `missing` set.

    `missing` names the conditions that are currently not met. `starts_at` and `ends_at` are those of the first term.
    """

    agency_id: str
    state: State
    missing: tuple[Condition, ...]
    enrollment_id: str | None = None
    number: int | None = None
    seats: int | None = None
    requested_start: Instant | None = None
    time_zone: str | None = None
    continues: tuple[str, ...] = ()
    contact_ref: str | None = None
    submitted_at: Instant | None = None
    changed_at: Instant | None = None
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    suspension_reason: SuspensionReason | None = None
    closed_at: Instant | None = None
    closing_reason: str | None = None

    @classmethod
    def of(cls, standing: Standing, now: datetime) -> Self:
        enrollment = standing.enrollment
        missing = standing.missing(now)
        if enrollment is None:
            return cls(agency_id=standing.agency.id, state=State.DRAFT, missing=missing)
        return cls(
            agency_id=standing.agency.id,
            state=enrollment.state,
            missing=missing,
            enrollment_id=enrollment.enrollment_id,
            number=enrollment.number,
            seats=enrollment.seats,
            requested_start=enrollment.requested_start,
            time_zone=enrollment.time_zone,
            continues=enrollment.continues,
            contact_ref=enrollment.contact_ref,
            submitted_at=enrollment.submitted_at,
            changed_at=enrollment.changed_at,
            starts_at=enrollment.term.starts_at if enrollment.term else None,
            ends_at=enrollment.term.ends_at if enrollment.term else None,
            suspension_reason=enrollment.suspension_reason,
            closed_at=enrollment.closure.closed_at if enrollment.closure else None,
            closing_reason=enrollment.closure.reason if enrollment.closure else None,
        )


class AuthorizationReply(BaseModel):
    """An authorization to use, in force within [valid_from, valid_until) until it is revoked."""

    agency_id: str
    authorization_id: str
    number: str
    valid_from: Instant
    valid_until: Instant
    revoked_at: Instant | None

    @classmethod
    def of(cls, agency_id: str, authorization: Authorization) -> Self:
        return cls(
            agency_id=agency_id,
            authorization_id=authorization.authorization_id,
            number=authorization.number,
            valid_from=authorization.valid_from,
            valid_until=authorization.valid_until,
            revoked_at=authorization.revoked_at,
        )


class AcceptanceReply(BaseModel):
    """An acceptance of the data-use terms."""

    agency_id: str
    acceptance_id: str
    terms_version: str
    signer_ref: str
    accepted_at: Instant

    @classmethod
    def of(cls, agency_id: str, acceptance: Acceptance, signer_ref: str) -> Self:
        return cls(
            agency_id=agency_id,
            acceptance_id=acceptance.acceptance_id,
            terms_version=acceptance.terms_version,
            signer_ref=signer_ref,
            accepted_at=acceptance.accepted_at,
        )

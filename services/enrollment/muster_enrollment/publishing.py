"""Converts facts of the domain to the events that publish them."""

from datetime import datetime

from muster_contracts import Event
from muster_contracts.enrollment import (
    AgencyEnrolled,
    AgencyEnrollmentSubmitted,
    AgencyReinstated,
    AgencySuspended,
    AgencyWithdrawn,
    AtuLapsed,
    AtuRecorded,
    ContactErased,
    ContactRecorded,
    DataUseTermsAccepted,
)
from muster_enrollment.domain.facts import (
    Acceptance,
    Agency,
    Authorization,
    ContactRole,
    Enrollment,
    Person,
    State,
)
from muster_enrollment.domain.rules import ISSUER, PRODUCT


def enrollment_changed(agency: Agency, before: Enrollment | None, after: Enrollment) -> Event | None:
    """The event that publishes an enrollment's new state.

    None if the state did not change, or if the enrollment ended: the event of its term's end announces that.
    """
    match (before.state if before else State.DRAFT, after.state):
        case (was, State.SUBMITTED) if was is not State.SUBMITTED:
            return AgencyEnrollmentSubmitted(
                agency_id=agency.id,
                enrollment_id=after.enrollment_id,
                agency_name=agency.name,
                seats_requested=after.seats,
                requested_start=after.requested_start,
            )
        case (State.SUBMITTED, State.ACTIVE):
            assert after.term is not None
            return AgencyEnrolled(
                agency_id=agency.id,
                enrollment_id=after.enrollment_id,
                agency_name=agency.name,
                seats=after.seats,
                starts_at=after.term.starts_at,
                ends_at=after.term.ends_at,
                time_zone=after.time_zone,
                continues=list(after.continues),
            )
        case (State.ACTIVE, State.SUSPENDED):
            assert after.suspension_reason is not None
            return AgencySuspended(
                agency_id=agency.id,
                enrollment_id=after.enrollment_id,
                reason=after.suspension_reason,
                suspended_at=after.changed_at,
            )
        case (State.SUSPENDED, State.ACTIVE):
            return AgencyReinstated(
                agency_id=agency.id, enrollment_id=after.enrollment_id, reinstated_at=after.changed_at
            )
        case (was, State.WITHDRAWN) if was is not State.WITHDRAWN:
            assert after.closure is not None
            return AgencyWithdrawn(
                agency_id=agency.id,
                enrollment_id=after.enrollment_id,
                reason=after.closure.reason,
                withdrawn_at=after.closure.closed_at,
            )
    return None


def atu_recorded(agency_id: str, authorization: Authorization) -> AtuRecorded:
    return AtuRecorded(
        agency_id=agency_id,
        authorization_id=authorization.authorization_id,
        number=authorization.number,
        issuer=ISSUER,
        product=PRODUCT,
        valid_from=authorization.valid_from,
        valid_until=authorization.valid_until,
    )


def atu_lapsed(agency_id: str, authorization: Authorization, at: datetime) -> AtuLapsed:
    """An authorization reached its end with no other in force."""
    return AtuLapsed(
        agency_id=agency_id,
        authorization_id=authorization.authorization_id,
        number=authorization.number,
        product=PRODUCT,
        lapsed_at=at,
    )


def data_use_terms_accepted(
    agency_id: str, acceptance: Acceptance, signer_ref: str, evidence_sha256: str
) -> DataUseTermsAccepted:
    return DataUseTermsAccepted(
        agency_id=agency_id,
        acceptance_id=acceptance.acceptance_id,
        terms_version=acceptance.terms_version,
        signer_ref=signer_ref,
        evidence_sha256=evidence_sha256,
        accepted_at=acceptance.accepted_at,
    )


def contact_recorded(agency_id: str, contact_ref: str, role: ContactRole, person: Person) -> ContactRecorded:
    """For the restricted directory only: it has a person's name and address."""
    return ContactRecorded(
        agency_id=agency_id, subject_ref=contact_ref, role=role, name=person.name, email=person.email
    )


def contact_erased(agency_id: str, contact_ref: str) -> ContactErased:
    return ContactErased(agency_id=agency_id, subject_ref=contact_ref)

"""Events of the enrollment service: agencies, their authorization, training, outcomes, contacts, and audit seals."""

from muster_contracts.enrollment.agency import (
    AgencyEnrolled,
    AgencyEnrollmentSubmitted,
    AgencyMerged,
    AgencyName,
    AgencyReinstated,
    AgencySuspended,
    AgencyWithdrawn,
    AtuLapsed,
    AtuRecorded,
    AuthorizationId,
    AuthorizationNumber,
    CollaborationConsolidated,
    DataUseTermsAccepted,
    EnrollmentId,
    Product,
    SuspensionReason,
)
from muster_contracts.enrollment.audit import EnrollmentAuditSealed
from muster_contracts.enrollment.directory import ContactErased, ContactRecorded
from muster_contracts.enrollment.program import (
    OutcomeReported,
    SessionId,
    TrainingFormat,
    TrainingSessionCompleted,
    TrainingSessionScheduled,
)

__all__ = [
    "AgencyEnrolled",
    "AgencyEnrollmentSubmitted",
    "AgencyMerged",
    "AgencyName",
    "AgencyReinstated",
    "AgencySuspended",
    "AgencyWithdrawn",
    "AtuLapsed",
    "AtuRecorded",
    "AuthorizationId",
    "AuthorizationNumber",
    "CollaborationConsolidated",
    "ContactErased",
    "ContactRecorded",
    "DataUseTermsAccepted",
    "EnrollmentAuditSealed",
    "EnrollmentId",
    "OutcomeReported",
    "Product",
    "SessionId",
    "SuspensionReason",
    "TrainingFormat",
    "TrainingSessionCompleted",
    "TrainingSessionScheduled",
]

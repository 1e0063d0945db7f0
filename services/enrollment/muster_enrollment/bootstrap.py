"""Assembles enrollment."""

from muster_contracts.enrollment import AgencyEnrolled, ContactRecorded, EnrollmentAuditSealed
from muster_enrollment import api
from muster_enrollment.api import contacts
from muster_enrollment.handlers.contacts import CONTACT_ERASURE
from muster_enrollment.schema import SCHEMA
from muster_enrollment.settings import EnrollmentSettings
from muster_enrollment.subscriptions import DEADLINES, SUBSCRIPTIONS
from muster_runtime.service import Service


def build(settings: EnrollmentSettings | None = None) -> Service:
    """The service; None reads its settings from the environment."""
    return Service(
        schema=SCHEMA,
        settings=settings or EnrollmentSettings(),
        routers=[api.router, contacts.router],
        produces=[AgencyEnrolled.topic, ContactRecorded.topic, EnrollmentAuditSealed.topic],
        audit_sealed=EnrollmentAuditSealed,
        subscriptions=SUBSCRIPTIONS,
        deadlines=DEADLINES,
        required_deadlines=[CONTACT_ERASURE],
    )

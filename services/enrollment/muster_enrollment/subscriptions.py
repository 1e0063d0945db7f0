"""Which event and which deadline goes to which handler."""

from collections.abc import Mapping

from muster_contracts import Event
from muster_contracts.billing import TermEnded
from muster_enrollment.handlers.authorizations import ATU, on_atu_due
from muster_enrollment.handlers.contacts import CONTACT_ERASURE, on_contact_erasure_due
from muster_enrollment.handlers.enrollments import on_term_ended
from muster_runtime.messaging.events import EventHandler
from muster_runtime.scheduling.deadlines import DeadlineHandler

SUBSCRIPTIONS: Mapping[type[Event], EventHandler] = {TermEnded: on_term_ended}

DEADLINES: Mapping[str, DeadlineHandler] = {
    ATU: on_atu_due,
    CONTACT_ERASURE: on_contact_erasure_due,
}

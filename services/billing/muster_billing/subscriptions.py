"""Which event and which deadline goes to which handler."""

from collections.abc import Mapping
from functools import partial
from zoneinfo import ZoneInfo

from muster_billing.domain import Tariff
from muster_billing.handlers import invoices, renewals, terms
from muster_billing.handlers.transitions import END_ENROLLMENT, END_TERM, OFFER_RENEWAL, OVERDUE_NOTICE, START_TERM
from muster_contracts import Event
from muster_contracts.enrollment import AgencyEnrolled, AgencyWithdrawn
from muster_runtime.messaging.events import EventHandler
from muster_runtime.scheduling.deadlines import DeadlineHandler


def subscriptions(tariff: Tariff, zone: ZoneInfo) -> Mapping[type[Event], EventHandler]:
    """The handler of each event. There is none for a suspension: the term continues, and its invoice is owed."""
    return {
        AgencyEnrolled: partial(terms.on_agency_enrolled, tariff, zone),
        AgencyWithdrawn: partial(terms.on_agency_withdrawn, zone),
    }


def deadlines(tariff: Tariff, zone: ZoneInfo) -> Mapping[str, DeadlineHandler]:
    """The handler of each kind of deadline. Kinds that are due at the same instant are handled in this order."""
    return {
        START_TERM: terms.on_start_term_due,
        OFFER_RENEWAL: partial(renewals.on_offer_renewal_due, tariff),
        OVERDUE_NOTICE: invoices.on_overdue_notice_due,
        END_TERM: partial(terms.on_end_term_due, tariff, zone),
        END_ENROLLMENT: partial(terms.on_end_enrollment_due, zone),
    }


# Each leads to the next step of a term or its invoice, or is its last one.
REQUIRED_DEADLINES = (START_TERM, OFFER_RENEWAL, OVERDUE_NOTICE, END_TERM, END_ENROLLMENT)

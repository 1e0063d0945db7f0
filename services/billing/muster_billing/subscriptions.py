"""What billing listens to and what it does when its time has come."""

from collections.abc import Mapping
from functools import partial
from zoneinfo import ZoneInfo

from muster_billing import handlers, lifecycle
from muster_billing.domain import Tariff
from muster_contracts import Event
from muster_contracts.enrollment import AgencyEnrolled, AgencyWithdrawn
from muster_runtime.messaging.events import EventHandler
from muster_runtime.scheduling.deadlines import DeadlineHandler


def subscriptions(tariff: Tariff, zone: ZoneInfo) -> Mapping[type[Event], EventHandler]:
    """A suspension changes nothing here: a term runs, and its invoice is owed."""
    return {
        AgencyEnrolled: partial(handlers.begin_first_terms, tariff, zone),
        AgencyWithdrawn: partial(handlers.withdraw, zone),
    }


def deadlines(tariff: Tariff, zone: ZoneInfo) -> Mapping[str, DeadlineHandler]:
    """Kinds due at one instant are handled in this order."""
    return {
        lifecycle.START_TERM: handlers.start_terms,
        lifecycle.OFFER_RENEWAL: partial(handlers.offer_renewals, tariff),
        lifecycle.TELL_OVERDUE: handlers.tell_overdue,
        lifecycle.END_TERM: partial(handlers.end_terms, tariff, zone),
    }

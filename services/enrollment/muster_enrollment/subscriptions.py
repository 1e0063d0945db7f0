"""Which event and which deadline goes to which handler."""

from collections.abc import Mapping

from muster_contracts import Event
from muster_contracts.billing import TermEnded
from muster_enrollment import handlers
from muster_runtime.messaging.events import EventHandler
from muster_runtime.scheduling.deadlines import DeadlineHandler

SUBSCRIPTIONS: Mapping[type[Event], EventHandler] = {TermEnded: handlers.on_term_ended}

DEADLINES: Mapping[str, DeadlineHandler] = {
    handlers.ATU: handlers.on_atu_bound,
    handlers.CONTACT_ERASURE: handlers.erase_contacts,
}

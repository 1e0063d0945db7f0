"""Which event leads to what: one table."""

from collections.abc import Mapping

from muster_contracts import Event, event_types
from muster_contracts.enrollment import ContactErased, ContactRecorded
from muster_contracts.entitlements import PersonErased, PersonRecorded
from muster_notify import handlers
from muster_notify.rules import public_types
from muster_runtime.messaging.events import EventHandler

SUBSCRIPTIONS: Mapping[type[Event], EventHandler] = {
    **{event_types()[name]: handlers.announce for name in public_types()},
    ContactRecorded: handlers.record_contacts,
    ContactErased: handlers.erase,
    PersonRecorded: handlers.record_persons,
    PersonErased: handlers.erase,
}

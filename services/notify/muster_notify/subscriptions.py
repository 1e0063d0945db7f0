"""Which event goes to which handler."""

from collections.abc import Mapping

from muster_contracts import Event, event_types
from muster_contracts.enrollment import ContactErased, ContactRecorded
from muster_contracts.entitlements import PersonErased, PersonRecorded
from muster_notify.domain.rules import public_types
from muster_notify.handlers import announcements, directory
from muster_runtime.messaging.events import EventHandler

SUBSCRIPTIONS: Mapping[type[Event], EventHandler] = {
    **{event_types()[name]: announcements.on_public_event for name in public_types()},
    ContactRecorded: directory.on_contact_recorded,
    ContactErased: directory.on_erased,
    PersonRecorded: directory.on_person_recorded,
    PersonErased: directory.on_erased,
}

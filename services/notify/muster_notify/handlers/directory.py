"""Maintains the directory of contacts and persons, the only place in notify that knows people."""

from collections.abc import Sequence

from muster_contracts import Erasure
from muster_contracts.enrollment import ContactRecorded
from muster_contracts.entitlements import PersonRecorded
from muster_notify.domain.contacts import PERSON
from muster_notify.repository import deliveries, directory
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.messaging.events import Received


async def on_contact_recorded(uow: UnitOfWork, events: Sequence[Received[ContactRecorded]]) -> None:
    """Record an agency's contacts, and make the e-mails that wait for them due now."""
    contacts = [received.data for received in events]
    roles = [contact.role for contact in contacts]
    await directory.save_people(uow.connection, contacts, roles)
    await deliveries.save_waiting_as_due(uow.connection, [contact.agency_id for contact in contacts], roles, uow.now)
    uow.wake()


async def on_person_recorded(uow: UnitOfWork, events: Sequence[Received[PersonRecorded]]) -> None:
    """Record seat holders."""
    persons = [received.data for received in events]
    await directory.save_people(uow.connection, persons, [PERSON] * len(persons))


async def on_erased(uow: UnitOfWork, events: Sequence[Received[Erasure]]) -> None:
    """Delete contacts or seat holders from the directory."""
    keys = [(received.data.agency_id, received.data.subject_ref) for received in events]
    await directory.delete_people(uow.connection, keys)

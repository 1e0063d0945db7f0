"""The contacts that an agency's enrollment needs, and their erasure."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from muster_enrollment import publishing
from muster_enrollment.commands import EraseLostContact
from muster_enrollment.domain.facts import ContactRole, Person
from muster_enrollment.domain.rules import CONTACT_RETENTION, SIGNER_RETENTION
from muster_enrollment.replies import ErasureReply
from muster_enrollment.repository.contacts import add_contact, delete_contact_details, has_contact, list_contacts
from muster_enrollment.repository.standings import find_standing
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import Conflict
from muster_runtime.observability import audit
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

# The kind of deadline at which a contact is no longer needed; the subject is the contact. A live enrollment's contacts
# have no such deadline.
CONTACT_ERASURE = "contact-erasure"


async def on_contact_erasure_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Erase the contacts that no live enrollment has needed for their retention period."""
    await _erase(uow, due[0].agency_id, [deadline.subject for deadline in due], due[-1].due_at)


async def erase_lost_contact(uow: UnitOfWork, command: EraseLostContact) -> ErasureReply:
    """Publish the erasure of a contact that only the directory topic and its readers have.

    Raises NotFound if the register has no such agency, and Conflict if the service has the contact.
    """
    agency_id, contact_ref = command.agency_id, command.contact_ref
    await find_standing(uow.connection, agency_id)
    if await has_contact(uow.connection, agency_id, contact_ref):
        raise Conflict(f"contact_ref: {contact_ref} is not lost: it is erased once no enrollment needs it")
    uow.publish(publishing.contact_erased(agency_id, contact_ref))
    audit.record(uow, command="EraseLostContact", agency_id=agency_id, subject=contact_ref, reason=command.reason)
    return ErasureReply(agency_id=agency_id, contact_ref=contact_ref)


async def replace_contact(uow: UnitOfWork, agency_id: str, contact_ref: str, role: ContactRole, person: Person) -> None:
    """Record a person in a role, and erase the previous one."""
    await _erase(uow, agency_id, await list_contacts(uow.connection, agency_id, (role,)), uow.now)
    await add_contact(uow.connection, agency_id, contact_ref, role, person, uow.now)
    uow.publish(publishing.contact_recorded(agency_id, contact_ref, role, person))


async def keep_contacts(uow: UnitOfWork, agency_id: str) -> None:
    """Keep an agency's contacts: a new enrollment needs them."""
    deadlines.cancel(uow, agency_id, CONTACT_ERASURE, await list_contacts(uow.connection, agency_id))


async def schedule_contacts_erasure(uow: UnitOfWork, agency_id: str) -> None:
    """Erase an agency's contacts after the messages about the end of its enrollment."""
    _schedule_erasure(uow, agency_id, await list_contacts(uow.connection, agency_id), CONTACT_RETENTION)


def schedule_signer_erasure(uow: UnitOfWork, agency_id: str, signer_ref: str) -> None:
    """Erase a signer unless an enrollment is submitted in time."""
    _schedule_erasure(uow, agency_id, [signer_ref], SIGNER_RETENTION)


def _schedule_erasure(uow: UnitOfWork, agency_id: str, contact_refs: Sequence[str], retention: timedelta) -> None:
    # Counts from now, not from the enrollment's end: after an outage, the messages have yet to be sent.
    due_at = uow.now + retention
    deadlines.schedule(uow, [Deadline(CONTACT_ERASURE, agency_id, ref, due_at) for ref in contact_refs])


async def _erase(uow: UnitOfWork, agency_id: str, contact_refs: Sequence[str], at: datetime) -> None:
    for contact_ref in await delete_contact_details(uow.connection, contact_refs, at):
        uow.publish(publishing.contact_erased(agency_id, contact_ref), time=at)

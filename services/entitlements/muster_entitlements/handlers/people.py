"""The erasure of people whose seats a restore lost."""

from muster_contracts.entitlements import PersonErased
from muster_entitlements.commands import EraseLostPerson
from muster_entitlements.errors import SeatAlreadyHeld
from muster_entitlements.handlers.lookups import known_pool
from muster_entitlements.replies.seats import ErasureReply
from muster_entitlements.repository.seats import find_unrevoked
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.observability import audit


async def erase_lost_person(uow: UnitOfWork, command: EraseLostPerson) -> ErasureReply:
    """Publish the erasure of a person whom only the directory topic and its readers have.

    Raises PoolUnknown, or SeatAlreadyHeld if the person has a seat: they are erased when it is revoked.
    """
    agency_id, subject_ref = command.agency_id, command.subject_ref
    await known_pool(uow, agency_id)
    if (seat_id := await find_unrevoked(uow.connection, agency_id, subject_ref)) is not None:
        raise SeatAlreadyHeld(subject_ref, seat_id)
    uow.publish(PersonErased(agency_id=agency_id, subject_ref=subject_ref))
    audit.record(uow, command="EraseLostPerson", agency_id=agency_id, subject=subject_ref, reason=command.reason)
    return ErasureReply(agency_id=agency_id, subject_ref=subject_ref)

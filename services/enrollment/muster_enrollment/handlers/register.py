"""The command that imports the agency register."""

from muster_enrollment.commands import ImportRegister
from muster_enrollment.domain.register import check_against, check_branches
from muster_enrollment.replies import RegisterImportReply
from muster_enrollment.repository.agencies import list_agencies, list_enrolled, save_agencies
from muster_runtime.database.transactions import EVERY_AGENCY, UnitOfWork
from muster_runtime.observability import audit


async def import_register(uow: UnitOfWork, command: ImportRegister) -> RegisterImportReply:
    """Add new agencies and update those that differ. Raises RegisterRefused."""
    register = await list_agencies(uow.connection)
    check_against(register, command.entries)
    changed = [entry for entry in command.entries if register.get(entry.agency.id) != entry.agency]
    await save_agencies(uow.connection, [entry.agency for entry in changed])
    # Read after the update, which waits for every submission that has locked one of these entries.
    enrolled = await list_enrolled(uow.connection, [entry.agency.id for entry in changed])
    check_branches(changed, enrolled)
    audit.record(
        uow,
        command="ImportRegister",
        agency_id=EVERY_AGENCY,
        after={"changed": [entry.agency.id for entry in changed]},
    )
    return RegisterImportReply(imported=len(changed), unchanged=len(command.entries) - len(changed))

"""The route that erases a contact that a restore lost."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Response

from muster_contracts import AgencyId
from muster_enrollment.commands import EraseLostContact
from muster_enrollment.handlers import contacts
from muster_enrollment.replies import ErasureReply
from muster_runtime.errors import Conflict
from muster_runtime.http.application import CommandsDep, ReasonLine, RequestBody, requires_program
from muster_runtime.http.problem_responses import COMMON, problem_responses

router = APIRouter(prefix="/v1", tags=["enrollment"], responses=COMMON)

ContactRef = Annotated[str, Path(pattern=r"^con_[0-9a-f]{32}$")]


class ErasureRequest(RequestBody):
    """The reason; only the audit trail keeps it."""

    reason: ReasonLine


@router.post(
    "/agencies/{agency_id}/contacts/{contact_ref}/erasure",
    summary="Erase a lost contact",
    dependencies=[requires_program("enrollment:operate")],
    response_model=ErasureReply,
    responses=problem_responses(Conflict),
)
async def erase_lost_contact(
    agency_id: AgencyId, contact_ref: ContactRef, body: ErasureRequest, commands: CommandsDep
) -> Response:
    """Publishes the erasure of a contact that a restore of the service lost; its readers still have them."""
    command = EraseLostContact(agency_id, contact_ref, body.reason)
    return await commands.execute(agency_id, partial(contacts.erase_lost_contact, command=command))

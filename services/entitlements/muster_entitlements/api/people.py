"""The routes that name a person: assign and transfer a seat, erase a lost person, record a use."""

from functools import partial
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import Field

from muster_contracts import AgencyId
from muster_entitlements.api.parameters import (
    LONGEST_SUBJECT,
    OPERATE,
    PREFIX,
    WRITE,
    DirectoryDep,
    SeatId,
    SubjectReference,
)
from muster_entitlements.commands import AssignSeat, EraseLostPerson, MarkUse, TransferSeat
from muster_entitlements.domain.seats import SeatState
from muster_entitlements.domain.units import normalize_unit
from muster_entitlements.errors import (
    FeatureUnknown,
    PoolNotOpen,
    PoolUnknown,
    SeatAlreadyHeld,
    SeatCapReached,
    SeatRevokedAlready,
    SeatStateRefused,
    SeatUnknown,
    UseRefused,
)
from muster_entitlements.handlers import people, seats, uses
from muster_entitlements.handlers.seat_limit import report_limit_reached
from muster_entitlements.replies import SeatReply, SeatStateReply, UseReply
from muster_entitlements.replies.seats import ErasureReply
from muster_runtime.errors import NotFound
from muster_runtime.http.application import CommandsDep, ReaderDep, ReasonLine, RequestBody, RuntimeDep
from muster_runtime.http.problem_responses import COMMON, problem_responses


class PersonRequest(RequestBody):
    """A person."""

    email: str = Field(description="An address in a .gov or .mil domain.", examples=["ada.example@nasa.gov"])
    name: str | None = None


class SeatRequest(PersonRequest):
    """The person who gets a seat, and its initial state: reserved and invited seats are kept until activation."""

    state: Literal["reserved", "invited", "assigned"] = "assigned"
    unit: str | None = Field(
        default=None,
        description="The part of the agency that the seat is for. It is public, and stays with the seat.",
        examples=["JPL"],
    )


class ErasureRequest(RequestBody):
    """The reason; only the audit trail keeps it."""

    reason: ReasonLine


class UseRequest(RequestBody):
    """A person and the feature that they use."""

    subject: str = Field(max_length=LONGEST_SUBJECT, description="An e-mail address or a subject reference.")
    feature: str


router = APIRouter(prefix=PREFIX, tags=["seats"], responses=COMMON)


@router.post(
    "/seats",
    summary="Assign a seat",
    dependencies=[WRITE],
    status_code=201,
    response_model=SeatReply,
    responses=problem_responses(NotFound, PoolUnknown, PoolNotOpen, SeatAlreadyHeld, SeatCapReached),
)
async def assign_seat(
    agency_id: AgencyId, body: SeatRequest, commands: CommandsDep, directory: DirectoryDep
) -> Response:
    person = directory.person(agency_id, body.email, body.name)
    command = AssignSeat(agency_id, person, SeatState(body.state), normalize_unit(body.unit))
    return await commands.execute(
        agency_id,
        partial(seats.assign_seat, command=command),
        status_code=201,
        location=lambda seat: f"/v1/agencies/{agency_id}/seats/{seat.seat_id}",
        kept=_without_person,
        after_refusal={SeatCapReached: partial(report_limit_reached, agency_id=agency_id)},
    )


@router.post(
    "/seats/{seat_id}/transfer",
    summary="Transfer a seat",
    dependencies=[WRITE],
    response_model=SeatStateReply,
    responses=problem_responses(
        NotFound, PoolUnknown, SeatUnknown, PoolNotOpen, SeatRevokedAlready, SeatStateRefused, SeatAlreadyHeld
    ),
)
async def transfer_seat(
    agency_id: AgencyId, seat_id: SeatId, body: PersonRequest, commands: CommandsDep, directory: DirectoryDep
) -> Response:
    """Gives the seat to another person; its ID stays the same."""
    command = TransferSeat(agency_id, seat_id, directory.person(agency_id, body.email, body.name))
    return await commands.execute(agency_id, partial(seats.transfer_seat, command=command))


@router.post(
    "/people/{subject_ref}/erasure",
    summary="Erase a lost person",
    dependencies=[OPERATE],
    response_model=ErasureReply,
    responses=problem_responses(NotFound, PoolUnknown, SeatAlreadyHeld),
)
async def erase_lost_person(
    agency_id: AgencyId, subject_ref: SubjectReference, body: ErasureRequest, commands: CommandsDep
) -> Response:
    """Publishes the erasure of a person whose seat a restore of the service lost; its readers still have them."""
    command = EraseLostPerson(agency_id, subject_ref, body.reason)
    return await commands.execute(agency_id, partial(people.erase_lost_person, command=command))


@router.post(
    "/usage",
    summary="Record the use of a feature",
    dependencies=[WRITE],
    responses=problem_responses(NotFound, FeatureUnknown, UseRefused),
)
async def mark_use(
    agency_id: AgencyId,
    body: UseRequest,
    reader: ReaderDep,
    commands: CommandsDep,
    runtime: RuntimeDep,
    directory: DirectoryDep,
) -> UseReply:
    """Records that a person uses a feature today. Only the first use of a day writes anything."""
    command = MarkUse(agency_id, directory.subject_ref(agency_id, body.subject), body.feature)
    return await uses.mark_use(
        command,
        runtime.clock.now(),
        read=partial(reader.read, agency_id),
        write=partial(commands.write, agency_id),
    )


def _without_person(seat: SeatReply) -> SeatReply:
    return seat.model_copy(update={"email": None, "name": None})

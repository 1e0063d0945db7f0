"""Seats, one at a time."""

from functools import partial
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from muster_contracts import AgencyId
from muster_entitlements import queries
from muster_entitlements.api.parts import PREFIX, READ, WRITE, DirectoryDep, SeatId
from muster_entitlements.catalog import features
from muster_entitlements.checks import Verdict, check
from muster_entitlements.commands import (
    ActivateSeat,
    AssignSeat,
    InviteToSeat,
    MarkUse,
    ReinstateSeat,
    RevokeSeat,
    SuspendSeat,
    TransferSeat,
)
from muster_entitlements.domain import SeatState
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
from muster_entitlements.handlers import seats
from muster_entitlements.replies import SeatReply, SeatStateReply, UseReply
from muster_runtime.errors import NotFound
from muster_runtime.http.application import CommandsDep, PageDep, ReaderDep, RuntimeDep
from muster_runtime.http.problem_responses import COMMON, problem_responses
from muster_runtime.pagination import Page

router = APIRouter(prefix=PREFIX, tags=["seats"], responses=COMMON)


class PersonRequest(BaseModel):
    """A person."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    email: str = Field(description="An address in a .gov or .mil domain.", examples=["ada.example@nasa.gov"])
    name: str | None = None


class SeatRequest(PersonRequest):
    """The person who gets a seat, and its first state: reserved and invited seats are kept until activation."""

    state: Literal["reserved", "invited", "assigned"] = "assigned"


class SuspensionRequest(BaseModel):
    """The reason for a suspension. It is public: a keyword, not a text about a person."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str = Field(default="requested", pattern=r"^[a-z][a-z0-9_]{0,39}$", examples=["training_expired"])


class RevocationRequest(BaseModel):
    """The reason for a revocation; only the audit trail keeps it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str | None = Field(default=None, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")


class UseRequest(BaseModel):
    """A person and the feature that they use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str = Field(max_length=300, description="An e-mail address or a subject reference.")
    feature: str


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
    command = AssignSeat(agency_id, directory.person(agency_id, body.email, body.name), SeatState(body.state))
    try:
        return await commands.execute(
            agency_id,
            partial(seats.assign_seat, command=command),
            status_code=201,
            location=lambda seat: f"/v1/agencies/{agency_id}/seats/{seat.seat_id}",
            kept=_without_person,
        )
    except SeatCapReached:
        async with commands.write(agency_id) as uow:
            await seats.report_limit_reached(uow, agency_id)
        raise


def _without_person(seat: SeatReply) -> SeatReply:
    return seat.model_copy(update={"email": None, "name": None})


@router.get("/seats", summary="List seats", dependencies=[READ])
async def list_seats(agency_id: AgencyId, reader: ReaderDep, page: PageDep) -> Page[SeatReply]:
    async with reader.read(agency_id) as connection:
        rows = await queries.list_seats(connection, agency_id, page.after, page.rows)
    return page.make(rows, key=lambda seat: seat.seat_id)


@router.get(
    "/seats/{seat_id}",
    summary="Retrieve a seat",
    dependencies=[READ],
    responses=problem_responses(NotFound, SeatUnknown),
)
async def read_seat(agency_id: AgencyId, seat_id: SeatId, reader: ReaderDep) -> SeatReply:
    async with reader.read(agency_id) as connection:
        seat = await queries.find_seat(connection, agency_id, seat_id)
    if seat is None:
        raise SeatUnknown(agency_id, seat_id)
    return seat


@router.post(
    "/seats/{seat_id}/invitation",
    summary="Invite a person to a seat",
    dependencies=[WRITE],
    response_model=SeatStateReply,
    responses=problem_responses(NotFound, PoolUnknown, SeatUnknown, PoolNotOpen, SeatRevokedAlready, SeatStateRefused),
)
async def invite_to_seat(agency_id: AgencyId, seat_id: SeatId, commands: CommandsDep) -> Response:
    """Invites the person for whom the seat is reserved. Repeating it restarts the invitation's time."""
    command = InviteToSeat(agency_id, seat_id)
    return await commands.execute(agency_id, partial(seats.invite_to_seat, command=command))


@router.post(
    "/seats/{seat_id}/activation",
    summary="Activate a seat",
    dependencies=[WRITE],
    response_model=SeatStateReply,
    responses=problem_responses(NotFound, PoolUnknown, SeatUnknown, PoolNotOpen, SeatRevokedAlready, SeatStateRefused),
)
async def activate_seat(agency_id: AgencyId, seat_id: SeatId, commands: CommandsDep) -> Response:
    command = ActivateSeat(agency_id, seat_id)
    return await commands.execute(agency_id, partial(seats.activate_seat, command=command))


@router.post(
    "/seats/{seat_id}/suspension",
    summary="Suspend a seat",
    dependencies=[WRITE],
    response_model=SeatStateReply,
    responses=problem_responses(NotFound, PoolUnknown, SeatUnknown, SeatRevokedAlready, SeatStateRefused),
)
async def suspend_seat(
    agency_id: AgencyId, seat_id: SeatId, commands: CommandsDep, body: SuspensionRequest | None = None
) -> Response:
    command = SuspendSeat(agency_id, seat_id, (body or SuspensionRequest()).reason)
    return await commands.execute(agency_id, partial(seats.suspend_seat, command=command))


@router.post(
    "/seats/{seat_id}/reinstatement",
    summary="Reinstate a seat",
    dependencies=[WRITE],
    response_model=SeatStateReply,
    responses=problem_responses(NotFound, PoolUnknown, SeatUnknown, SeatRevokedAlready, SeatStateRefused),
)
async def reinstate_seat(agency_id: AgencyId, seat_id: SeatId, commands: CommandsDep) -> Response:
    command = ReinstateSeat(agency_id, seat_id)
    return await commands.execute(agency_id, partial(seats.reinstate_seat, command=command))


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
    "/seats/{seat_id}/revocation",
    summary="Revoke a seat",
    dependencies=[WRITE],
    response_model=SeatStateReply,
    responses=problem_responses(NotFound, PoolUnknown, SeatUnknown),
)
async def revoke_seat(
    agency_id: AgencyId, seat_id: SeatId, commands: CommandsDep, body: RevocationRequest | None = None
) -> Response:
    command = RevokeSeat(agency_id, seat_id, body.reason if body else None)
    return await commands.execute(agency_id, partial(seats.revoke_seat, command=command))


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
    if body.feature not in features():
        raise FeatureUnknown(body.feature)
    subject_ref, now = directory.subject_ref(agency_id, body.subject), runtime.clock.now()
    async with reader.read(agency_id) as connection:
        question = await queries.find_question(connection, agency_id, subject_ref, body.feature)
    answer = check(question, now)
    if answer.verdict is Verdict.REFUSED:
        raise UseRefused(answer.reason)
    if question.used_on != now.date():
        async with commands.write(agency_id) as uow:
            await seats.mark_use(uow, MarkUse(agency_id, subject_ref))
    return UseReply(subject_ref=subject_ref, used_on=now.date())

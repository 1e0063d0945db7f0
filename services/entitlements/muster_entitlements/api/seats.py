"""The routes of commands on a seat, which its ID names."""

import re
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BeforeValidator, Field

from muster_contracts import AgencyId
from muster_entitlements.api.parameters import PREFIX, WRITE, SeatId
from muster_entitlements.commands import ActivateSeat, InviteToSeat, ReinstateSeat, RevokeSeat, SuspendSeat
from muster_entitlements.errors import PoolNotOpen, PoolUnknown, SeatRevokedAlready, SeatStateRefused, SeatUnknown
from muster_entitlements.handlers import seats
from muster_entitlements.replies import SeatStateReply
from muster_runtime.errors import NotFound
from muster_runtime.http.application import CommandsDep, ReasonLine, RequestBody
from muster_runtime.http.problem_responses import COMMON, problem_responses

router = APIRouter(prefix=PREFIX, tags=["seats"], responses=COMMON)


_KEYWORD = r"^[a-z][a-z0-9_]{0,39}$"


def _keyword(reason: object) -> object:
    """Say in words what a keyword is; the pattern, which refuses it too, is for OpenAPI. Raises ValueError."""
    if isinstance(reason, str) and not re.fullmatch(_KEYWORD, reason):
        raise ValueError("must be a keyword such as training_expired: a letter, then up to 39 of a-z, 0-9, and _")
    return reason


_Keyword = Annotated[str, BeforeValidator(_keyword), Field(pattern=_KEYWORD)]


class SuspensionRequest(RequestBody):
    """The reason for a suspension. It is public: a keyword, not a text about a person."""

    reason: _Keyword = Field(default="requested", examples=["training_expired"])


class RevocationRequest(RequestBody):
    """The reason for a revocation; only the audit trail keeps it."""

    reason: ReasonLine | None = None


@router.post(
    "/seats/{seat_id}/invitation",
    summary="Invite a person to a seat",
    dependencies=[WRITE],
    response_model=SeatStateReply,
    responses=problem_responses(NotFound, PoolUnknown, SeatUnknown, PoolNotOpen, SeatRevokedAlready, SeatStateRefused),
)
async def invite_to_seat(agency_id: AgencyId, seat_id: SeatId, commands: CommandsDep) -> Response:
    """Invites the person for whom the seat is reserved. Repeating it restarts the invitation period."""
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

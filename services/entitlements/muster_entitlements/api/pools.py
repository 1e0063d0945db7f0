"""The routes of pools and seat policies."""

from functools import partial

from fastapi import APIRouter, Response
from pydantic import Field

from muster_contracts import AgencyId
from muster_entitlements import queries
from muster_entitlements.api.parameters import OPERATE, PREFIX, READ, WRITE, AsOfDep
from muster_entitlements.commands import ResizePool, SetSeatPolicy
from muster_entitlements.domain.seats import DEFAULT_POLICY, SeatPolicy
from muster_entitlements.errors import CapBelowUse, PoolUnknown
from muster_entitlements.handlers import pools, seat_policies
from muster_entitlements.replies import PoolReply, SeatPolicyReply
from muster_runtime.errors import NotFound, PreconditionFailed
from muster_runtime.http.application import CommandsDep, IfMatchDep, ReaderDep, RequestBody, RuntimeDep, etag
from muster_runtime.http.problem_responses import COMMON, problem_responses
from muster_runtime.http.tenancy import InvalidEntityTag

router = APIRouter(prefix=PREFIX, tags=["pools"], responses=COMMON)

# More people than the program could ever have.
MOST_SEATS = 10_000_000
MOST_DAYS = 3660


class ResizeRequest(RequestBody):
    """The agreed number of seats."""

    cap: int = Field(strict=True, ge=0, le=MOST_SEATS)


class SeatPolicyRequest(RequestBody):
    """The rules for an agency's seats."""

    idle_days: int | None = Field(
        strict=True, ge=1, le=MOST_DAYS, description="Days without use after which a seat is idle; null: never."
    )
    warning_days: int = Field(default=DEFAULT_POLICY.warning_days, strict=True, ge=1, le=MOST_DAYS)
    invitation_days: int = Field(default=DEFAULT_POLICY.invitation_days, strict=True, ge=1, le=MOST_DAYS)


@router.get(
    "/pool", summary="Retrieve the seat pool", dependencies=[READ], responses=problem_responses(NotFound, PoolUnknown)
)
async def read_pool(agency_id: AgencyId, reader: ReaderDep, runtime: RuntimeDep, as_of: AsOfDep) -> PoolReply:
    async with reader.read(agency_id, of_one_state=as_of is not None) as connection:
        if as_of is not None:
            return await queries.find_past_pool(connection, agency_id, as_of)
        return await queries.find_pool(connection, agency_id, runtime.clock.now())


@router.post(
    "/pool/resize",
    summary="Resize the seat pool",
    dependencies=[OPERATE],
    response_model=PoolReply,
    responses=problem_responses(NotFound, PoolUnknown, CapBelowUse),
)
async def resize_pool(agency_id: AgencyId, body: ResizeRequest, commands: CommandsDep) -> Response:
    """The new cap must not be below the number of seats in use."""
    return await commands.execute(agency_id, partial(pools.resize_pool, command=ResizePool(agency_id, body.cap)))


@router.get("/seat-policy", summary="Retrieve the seat policy", dependencies=[READ])
async def read_seat_policy(agency_id: AgencyId, reader: ReaderDep, response: Response) -> SeatPolicyReply:
    async with reader.read(agency_id) as connection:
        policy = await queries.find_seat_policy(connection, agency_id)
    response.headers["etag"] = etag(policy.version)
    return policy


@router.put(
    "/seat-policy",
    summary="Set the seat policy",
    dependencies=[WRITE],
    response_model=SeatPolicyReply,
    responses=problem_responses(NotFound, PoolUnknown, PreconditionFailed, InvalidEntityTag),
)
async def set_seat_policy(
    agency_id: AgencyId, body: SeatPolicyRequest, commands: CommandsDep, if_match: IfMatchDep
) -> Response:
    """Sets when a seat counts as idle, and how long an invitation is valid. `If-Match` is optional."""
    policy = SeatPolicy(body.idle_days, body.warning_days, body.invitation_days)
    command = SetSeatPolicy(agency_id, policy, if_match)
    return await commands.execute(agency_id, partial(seat_policies.set_seat_policy, command=command))

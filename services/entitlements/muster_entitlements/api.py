"""The routes of entitlements: decode and delegate."""

from dataclasses import asdict
from functools import partial
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from muster_contracts import AgencyId
from muster_entitlements import queries
from muster_entitlements.catalogue import features
from muster_entitlements.commands import ActivateSeat, AssignSeat, RevokeSeat
from muster_entitlements.domain import Pool, check
from muster_entitlements.errors import FeatureUnknown, PoolUnknown, SeatCapReached, SeatUnknown
from muster_entitlements.handlers import imports, seats
from muster_entitlements.people import Directory
from muster_entitlements.replies import CheckReply, ImportReply, PoolReply, SeatReply, SeatStateReply, WindowReply
from muster_entitlements.repository.pools import find_pool
from muster_entitlements.seat_file import read_seat_file
from muster_entitlements.settings import EntitlementsSettings
from muster_runtime.http import MEBIBYTE, CommandsDep, Page, PageDep, ReaderDep, RuntimeDep, body_limit, requires

router = APIRouter(prefix="/v1/agencies/{agency_id}", tags=["entitlements"])

READ = requires("entitlements:read")
WRITE = requires("entitlements:write")

_SEAT_FILE = {"required": True, "content": {"text/csv": {"schema": {"type": "string"}, "example": "email,name\n"}}}

SeatId = Annotated[str, Path(pattern=r"^seat_[0-9a-f]{32}$")]


async def _directory(runtime: RuntimeDep) -> Directory:
    settings = cast("EntitlementsSettings", runtime.settings)
    return Directory(settings.subject_key.get_secret_value())


DirectoryDep = Annotated[Directory, Depends(_directory)]


class SeatRequest(BaseModel):
    """Whom to give a seat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    email: str = Field(description="Of a .gov or .mil domain.", examples=["ada.example@nasa.gov"])
    name: str | None = None


class RevocationRequest(BaseModel):
    """Why a seat is taken back; for the audit alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str | None = Field(default=None, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")


@router.get("/pool", dependencies=[READ])
async def read_pool(agency_id: AgencyId, reader: ReaderDep, runtime: RuntimeDep) -> PoolReply:
    pool = await _find_pool(agency_id, reader)
    return PoolReply(
        agency_id=pool.agency_id,
        enrollment_id=pool.enrollment_id,
        state=pool.state(runtime.clock.now()),
        cap=pool.cap,
        in_use=pool.in_use,
        starts_at=pool.starts_at,
        ends_at=pool.ends_at,
        revision=pool.revision,
    )


@router.get("/windows", dependencies=[READ])
async def list_windows(agency_id: AgencyId, reader: ReaderDep) -> Page[WindowReply]:
    async with reader.read(agency_id) as connection:
        windows = await queries.list_windows(connection, agency_id)
    return Page(items=[WindowReply.model_validate(asdict(window)) for window in windows], next=None)


@router.post("/seats", dependencies=[WRITE], status_code=201, response_model=SeatReply)
async def assign_seat(
    agency_id: AgencyId, body: SeatRequest, commands: CommandsDep, directory: DirectoryDep
) -> Response:
    command = AssignSeat(agency_id, directory.person(agency_id, body.email, body.name))
    try:
        return await commands.execute(
            agency_id,
            partial(seats.assign_seat, command=command),
            status_code=201,
            location=lambda seat: f"/v1/agencies/{agency_id}/seats/{seat.seat_id}",
        )
    except SeatCapReached:
        async with commands.write(agency_id) as uow:
            await seats.meet_limit(uow, agency_id)
        raise


@router.get("/seats", dependencies=[READ])
async def list_seats(agency_id: AgencyId, reader: ReaderDep, page: PageDep) -> Page[SeatReply]:
    async with reader.read(agency_id) as connection:
        rows = await queries.list_seats(connection, agency_id, page.after, page.limit + 1)
    return page.make(rows, key=lambda seat: seat.seat_id)


@router.get("/seats/{seat_id}", dependencies=[READ])
async def read_seat(agency_id: AgencyId, seat_id: SeatId, reader: ReaderDep) -> SeatReply:
    async with reader.read(agency_id) as connection:
        seat = await queries.find_seat(connection, agency_id, seat_id)
    if seat is None:
        raise SeatUnknown(agency_id, seat_id)
    return seat


@router.post("/seats/{seat_id}/activation", dependencies=[WRITE], response_model=SeatStateReply)
async def activate_seat(agency_id: AgencyId, seat_id: SeatId, commands: CommandsDep) -> Response:
    command = ActivateSeat(agency_id, seat_id)
    return await commands.execute(agency_id, partial(seats.activate_seat, command=command))


@router.post("/seats/{seat_id}/revocation", dependencies=[WRITE], response_model=SeatStateReply)
async def revoke_seat(
    agency_id: AgencyId, seat_id: SeatId, commands: CommandsDep, body: RevocationRequest | None = None
) -> Response:
    command = RevokeSeat(agency_id, seat_id, body.reason if body else None)
    return await commands.execute(agency_id, partial(seats.revoke_seat, command=command))


@router.post("/seat-imports", dependencies=[WRITE], openapi_extra={"requestBody": _SEAT_FILE})
@body_limit(4 * MEBIBYTE)
async def import_seats(
    agency_id: AgencyId,
    request: Request,
    commands: CommandsDep,
    directory: DirectoryDep,
) -> ImportReply:
    """Give the people of a CSV file a seat each; the same file again changes nothing."""
    rows = read_seat_file(await request.body())
    results = []
    for number, chunk in enumerate(imports.chunks(rows)):
        reply = await commands.execute(
            agency_id,
            partial(imports.import_rows, agency_id=agency_id, rows=chunk, directory=directory),
            part=number,
        )
        results += ImportReply.model_validate_json(bytes(reply.body)).results
    return ImportReply.of(results)


@router.get("/checks", dependencies=[READ])
async def check_subject(
    agency_id: AgencyId,
    reader: ReaderDep,
    runtime: RuntimeDep,
    directory: DirectoryDep,
    subject: Annotated[str, Query(max_length=300, description="An address, or a subject reference.")],
    feature: Annotated[str | None, Query(description="A feature of the catalogue; without it, the seat alone.")] = None,
) -> CheckReply:
    """Whether a person may use a feature now."""
    if feature is not None and feature not in features():
        raise FeatureUnknown(feature)
    subject_ref = directory.subject_ref(agency_id, subject)
    async with reader.read(agency_id) as connection:
        question = await queries.find_question(connection, agency_id, subject_ref, feature)
    return CheckReply.model_validate(asdict(check(question, runtime.clock.now())))


async def _find_pool(agency_id: str, reader: ReaderDep) -> Pool:
    async with reader.read(agency_id) as connection:
        pool = await find_pool(connection, agency_id)
    if pool is None:
        raise PoolUnknown(agency_id)
    return pool

"""The routes of adoption: how many people use an agency's features."""

from collections.abc import AsyncIterator

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from muster_contracts import AgencyId
from muster_entitlements.api.parameters import PREFIX, READ
from muster_entitlements.errors import PoolUnknown
from muster_entitlements.queries import adoption as queries
from muster_entitlements.replies.adoption import AdoptionDayReply, AdoptionReply
from muster_runtime.errors import NotFound
from muster_runtime.http.application import PageDep, Reader, ReaderDep, RuntimeDep
from muster_runtime.http.problem_responses import COMMON, problem_responses
from muster_runtime.pagination import Page

router = APIRouter(prefix=f"{PREFIX}/adoption", tags=["usage"], responses=COMMON, dependencies=[READ])

_UNKNOWN = problem_responses(NotFound, PoolUnknown)


@router.get("", summary="Retrieve adoption", responses=_UNKNOWN)
async def read_adoption(agency_id: AgencyId, reader: ReaderDep, runtime: RuntimeDep) -> AdoptionReply:
    """Shows how many people used each feature today and within 7 and 28 days, and how many have never used it."""
    async with reader.read(agency_id) as connection:
        return await queries.find_adoption(connection, agency_id, runtime.clock.now())


@router.get("/days", summary="List adoption by day", responses=_UNKNOWN)
async def list_adoption_days(
    agency_id: AgencyId, reader: ReaderDep, runtime: RuntimeDep, page: PageDep
) -> Page[AdoptionDayReply]:
    """The days of the term, by feature. A day without any use within 28 days is left out."""
    async with reader.read(agency_id) as connection:
        return await queries.list_days(connection, agency_id, page, runtime.clock.now())


@router.get(
    "/export",
    summary="Download adoption",
    response_class=StreamingResponse,
    responses=_UNKNOWN | {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def export_adoption(agency_id: AgencyId, reader: ReaderDep, runtime: RuntimeDep) -> StreamingResponse:
    """One CSV line for each feature and day of the term."""
    async with reader.read(agency_id) as connection:
        export = await queries.begin_export(connection, agency_id, runtime.clock.now())
    return StreamingResponse(_lines(reader, export), media_type="text/csv; charset=utf-8")


async def _lines(reader: Reader, export: queries.Export | None) -> AsyncIterator[str]:
    """Read some lines in each transaction, so that a slow client holds none open."""
    yield queries.EXPORT_HEADER
    while export is not None:
        async with reader.read(export.pool.agency_id) as connection:
            lines, export = await queries.export_days(connection, export)
        yield lines

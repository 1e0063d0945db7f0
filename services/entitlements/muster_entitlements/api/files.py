"""The routes of seat files: a streamed upload, then an operation that shows the progress."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from muster_contracts import AgencyId
from muster_contracts.entitlements import SeatBatchKind
from muster_entitlements import queries
from muster_entitlements.api.parameters import PREFIX, READ, WRITE, OperationId
from muster_entitlements.api.uploads import Upload, receiving
from muster_entitlements.domain.operations import OnLimit
from muster_entitlements.domain.row_results import RESULTS_HEADER
from muster_entitlements.errors import PoolUnknown
from muster_entitlements.errors.files import OperationUnknown, TooManyFiles, TooManyResults, UploadCutOff, UploadTooSlow
from muster_entitlements.replies import OperationReply
from muster_runtime.errors import NotFound
from muster_runtime.http.application import MEBIBYTE, Commands, CommandsDep, Reader, ReaderDep, RuntimeDep, body_limit
from muster_runtime.http.problem_responses import COMMON, problem_responses

router = APIRouter(prefix=PREFIX, tags=["seat files"], responses=COMMON)

# Two million rows take about 100 MiB.
FILE_LIMIT = 1024 * MEBIBYTE

DryRun = Annotated[bool, Query(description="Change nothing; the operation shows what would change.")]

_UPLOAD = problem_responses(NotFound, PoolUnknown, TooManyFiles, TooManyResults, UploadCutOff, UploadTooSlow)
_OPERATION = problem_responses(NotFound, OperationUnknown)


def _file(example: str) -> dict[str, object]:
    content = {"text/csv": {"schema": {"type": "string"}, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/seat-imports",
    summary="Import seats",
    responses=_UPLOAD,
    dependencies=[WRITE],
    status_code=202,
    response_model=OperationReply,
    openapi_extra=_file("email,name,unit\n"),
)
@body_limit(FILE_LIMIT, streamed=True)
async def import_seats(
    agency_id: AgencyId,
    request: Request,
    commands: CommandsDep,
    dry_run: DryRun = False,
    on_limit: Annotated[
        OnLimit, Query(description="When no seat is left: stop, or refuse the person and continue (fill).")
    ] = OnLimit.FILL,
    directory: Annotated[bool, Query(description="Publish the people on the restricted directory topic.")] = False,
) -> Response:
    """Assigns a seat to each person in a CSV file. Sending the same file again changes nothing."""
    async with receiving(
        commands, agency_id, SeatBatchKind.IMPORT, dry_run=dry_run, on_limit=on_limit, directory=directory
    ) as upload:
        return await _receive(agency_id, request, commands, upload)


@router.post(
    "/seat-suspensions",
    summary="Suspend seats in bulk",
    responses=_UPLOAD,
    dependencies=[WRITE],
    status_code=202,
    response_model=OperationReply,
    openapi_extra=_file("email\n"),
)
@body_limit(FILE_LIMIT, streamed=True)
async def suspend_seats(
    agency_id: AgencyId, request: Request, commands: CommandsDep, dry_run: DryRun = False
) -> Response:
    """Suspends the seats of the people in a CSV file."""
    async with receiving(commands, agency_id, SeatBatchKind.SUSPENSION, dry_run=dry_run) as upload:
        return await _receive(agency_id, request, commands, upload)


@router.post(
    "/seat-revocations",
    summary="Revoke seats in bulk",
    responses=_UPLOAD,
    dependencies=[WRITE],
    status_code=202,
    response_model=OperationReply,
    openapi_extra=_file("email\n"),
)
@body_limit(FILE_LIMIT, streamed=True)
async def revoke_seats(
    agency_id: AgencyId, request: Request, commands: CommandsDep, dry_run: DryRun = False
) -> Response:
    """Revokes the seats of the people in a CSV file."""
    async with receiving(commands, agency_id, SeatBatchKind.REVOCATION, dry_run=dry_run) as upload:
        return await _receive(agency_id, request, commands, upload)


@router.post(
    "/seat-transfers",
    summary="Transfer seats in bulk",
    responses=_UPLOAD,
    dependencies=[WRITE],
    status_code=202,
    response_model=OperationReply,
    openapi_extra=_file("from,to,name\n"),
)
@body_limit(FILE_LIMIT, streamed=True)
async def transfer_seats(
    agency_id: AgencyId, request: Request, commands: CommandsDep, dry_run: DryRun = False
) -> Response:
    """Transfers the seats of the people in a CSV file to others."""
    async with receiving(commands, agency_id, SeatBatchKind.TRANSFER, dry_run=dry_run) as upload:
        return await _receive(agency_id, request, commands, upload)


@router.get("/operations/{operation_id}", summary="Retrieve an operation", dependencies=[READ], responses=_OPERATION)
async def read_operation(
    agency_id: AgencyId, operation_id: OperationId, reader: ReaderDep, runtime: RuntimeDep
) -> OperationReply:
    async with reader.read(agency_id) as connection:
        return await queries.find_operation(connection, agency_id, operation_id, runtime.clock.now())


@router.get(
    "/operations/{operation_id}/results",
    summary="Download the results of an operation",
    dependencies=[READ],
    response_class=StreamingResponse,
    responses=_OPERATION | {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def download_results(agency_id: AgencyId, operation_id: OperationId, reader: ReaderDep) -> StreamingResponse:
    """One CSV line per row read so far: line, subject, outcome, reason. Results are kept for 30 days."""
    async with reader.read(agency_id) as connection:
        chunks = await queries.count_results(connection, agency_id, operation_id)
    lines = _results(reader, agency_id, operation_id, chunks)
    return StreamingResponse(lines, media_type="text/csv; charset=utf-8")


async def _receive(agency_id: str, request: Request, commands: Commands, upload: Upload) -> Response:
    body_sha256 = await upload.read(request)
    return await commands.execute(
        agency_id,
        upload.accept,
        status_code=202,
        location=lambda reply: f"/v1/agencies/{agency_id}/operations/{reply.operation_id}",
        body_sha256=body_sha256,
    )


async def _results(reader: Reader, agency_id: str, operation_id: str, chunks: int) -> AsyncIterator[bytes]:
    """Read each chunk in its own transaction, so that a slow client holds none open."""
    yield RESULTS_HEADER
    for number in range(chunks):
        async with reader.read(agency_id) as connection:
            results = await queries.find_results(connection, agency_id, operation_id, number)
        if results is not None:
            yield results

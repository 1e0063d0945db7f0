"""Receives seat files: a file is stored chunk by chunk, and queued for processing only when it is complete."""

from collections.abc import Sequence
from datetime import timedelta

from muster_contracts.entitlements import SeatBatchKind
from muster_entitlements.domain.operations import MOST_KEPT_ROWS, MOST_UNFINISHED, OnLimit
from muster_entitlements.domain.seat_file import Chunk, Columns
from muster_entitlements.errors.files import TooManyFiles, TooManyResults, UploadTooSlow
from muster_entitlements.handlers.lookups import known_pool
from muster_entitlements.handlers.operations import COMMANDS, ROWS_FORGOTTEN, ROWS_KEPT, delete_rows
from muster_entitlements.replies import OperationReply
from muster_entitlements.repository import operations
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.identifiers import new_id
from muster_runtime.observability import audit
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

UPLOAD_ABANDONED = "upload-abandoned"

UPLOAD_LIMIT = timedelta(hours=1)


async def begin_upload(
    uow: UnitOfWork, agency_id: str, kind: SeatBatchKind, *, dry_run: bool, on_limit: OnLimit, directory: bool
) -> str:
    """Add an operation that receives a file; returns its ID. Raises PoolUnknown, TooManyFiles, or TooManyResults."""
    pool = await known_pool(uow, agency_id)
    if await operations.count_unfinished(uow.connection, agency_id) >= MOST_UNFINISHED:
        raise TooManyFiles(agency_id, MOST_UNFINISHED)
    await _require_room(uow, agency_id, rows=1)
    operation_id = new_id("bat", uow.now)
    await operations.add_operation(
        uow.connection,
        operation_id,
        pool,
        kind,
        uow.context,
        uow.now,
        dry_run=dry_run,
        on_limit=on_limit,
        directory=directory,
    )
    # In case this process dies before the file is complete.
    deadlines.schedule(uow, [Deadline(UPLOAD_ABANDONED, agency_id, operation_id, uow.now + UPLOAD_LIMIT)])
    return operation_id


async def add_chunk(uow: UnitOfWork, agency_id: str, operation_id: str, number: int, chunk: Chunk) -> None:
    """Store a chunk of the file. Raises UploadTooSlow if the file was discarded before this chunk arrived."""
    if not await operations.add_chunk(uow.connection, agency_id, operation_id, number, chunk):
        raise UploadTooSlow(UPLOAD_LIMIT)


async def accept_upload(
    uow: UnitOfWork, agency_id: str, operation_id: str, columns: Columns | None, chunks: int
) -> OperationReply:
    """Queue a complete file for processing.

    Raises UploadTooSlow if it was discarded before it was complete, or TooManyResults.
    """
    accepted = columns and await operations.save_accepted(uow.connection, agency_id, operation_id, columns, chunks)
    if not accepted:
        raise UploadTooSlow(UPLOAD_LIMIT)
    await _require_room(uow, agency_id, rows=0)  # its own are counted now
    operation = await operations.find_operation(uow.connection, agency_id, operation_id)
    assert operation is not None  # this transaction accepted it
    deadlines.cancel(uow, agency_id, UPLOAD_ABANDONED, [operation_id])
    audit.record(
        uow,
        command=COMMANDS[operation.kind],
        agency_id=agency_id,
        subject=operation_id,
        after={"state": operation.state, "dry_run": operation.dry_run, "on_limit": operation.on_limit},
    )
    uow.wake()
    return OperationReply.of(operation, uow.now)


async def _require_room(uow: UnitOfWork, agency_id: str, *, rows: int) -> None:
    if await operations.count_kept_rows(uow.connection, agency_id, uow.now - ROWS_KEPT) + rows > MOST_KEPT_ROWS:
        raise TooManyResults(agency_id, MOST_KEPT_ROWS, ROWS_KEPT)


async def discard_upload(uow: UnitOfWork, agency_id: str, operation_id: str) -> None:
    """Delete a file that was not received completely."""
    if await operations.delete_incomplete(uow.connection, agency_id, [operation_id]):
        await delete_rows(uow, agency_id, operation_id)
    deadlines.cancel(uow, agency_id, UPLOAD_ABANDONED, [operation_id])


async def on_upload_abandoned_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Discard files that have not arrived completely."""
    agency_id = due[0].agency_id
    discarded = await operations.delete_incomplete(uow.connection, agency_id, [deadline.subject for deadline in due])
    deadlines.schedule(uow, [Deadline(ROWS_FORGOTTEN, agency_id, operation_id, uow.now) for operation_id in discarded])

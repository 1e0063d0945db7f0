"""Processes seat files chunk by chunk, completes them, and later deletes their rows."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from muster_contracts.entitlements import SeatBatchKind
from muster_entitlements import publishing
from muster_entitlements.domain.operations import Operation, OperationState
from muster_entitlements.domain.people import Directory
from muster_entitlements.domain.row_results import Report
from muster_entitlements.domain.seat_file import read_rows
from muster_entitlements.handlers.bulk_changes import change_rows
from muster_entitlements.handlers.imports import import_rows
from muster_entitlements.handlers.lookups import known_pool
from muster_entitlements.repository import dry_runs, operations
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.observability import audit
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

ROWS_FORGOTTEN = "operation-rows-forgotten"
REST_CLEARED = "operation-rest-cleared"

# The commands of files, as the audit trail names them.
COMMANDS = {
    SeatBatchKind.IMPORT: "ImportSeats",
    SeatBatchKind.SUSPENSION: "SuspendSeats",
    SeatBatchKind.REVOCATION: "RevokeSeats",
    SeatBatchKind.TRANSFER: "TransferSeats",
}

# Why the rest of a file is not read: the agency has enrolled again since the file was sent.
ENROLLMENT_OVER = "enrollment-over"

ROWS_KEPT = timedelta(days=30)

# The most that a transaction deletes; a chunk has a quarter of a megabyte.
CLEARED_CHUNKS = 32
CLEARED_SEATS = 5_000


async def process_next_chunk(uow: UnitOfWork, agency_id: str, directory: Directory) -> None:
    """Process the next chunk of the agency's next file.

    A file that was sent in an earlier enrollment is stopped: nobody has requested its seats in the current one. Rows,
    events, and the position in the file are written in one transaction, so processing resumes there after a crash.
    """
    operation = await operations.find_next(uow.connection, agency_id)
    if operation is None:
        return  # another process was faster
    pool = await known_pool(uow, agency_id)
    if operation.enrollment_id not in (None, pool.enrollment_id):
        operation = replace(operation, stop_reason=ENROLLMENT_OVER)
    elif operation.chunks_done < operation.chunks:
        operation = await _process_chunk(uow, operation, directory)
    if operation.chunks_done == operation.chunks or operation.stop_reason:
        operation = await _complete(uow, operation)
    await operations.save_operation(uow.connection, operation)


async def on_operation_rows_forgotten_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Delete the results of old files, one step of one file at a time; the totals stay."""
    first, *others = due
    deadlines.schedule(uow, others)
    await delete_rows(uow, first.agency_id, first.subject)


async def on_operation_rest_cleared_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Delete what stopped files and dry runs leave behind, one step of one operation at a time."""
    first, *others = due
    deadlines.schedule(uow, others)
    await _delete_rest(uow, first.agency_id, first.subject)


async def delete_rows(uow: UnitOfWork, agency_id: str, operation_id: str) -> None:
    """Delete the next chunks of a file, and schedule the rest."""
    if await operations.delete_chunks(uow.connection, agency_id, operation_id, CLEARED_CHUNKS):
        deadlines.schedule(uow, [Deadline(ROWS_FORGOTTEN, agency_id, operation_id, uow.now)])


async def _delete_rest(uow: UnitOfWork, agency_id: str, operation_id: str) -> None:
    """Delete unread chunks and simulated changes, and schedule the rest."""
    unread = await operations.delete_chunks(uow.connection, agency_id, operation_id, CLEARED_CHUNKS, unread=True)
    simulated = await dry_runs.delete_simulated(uow.connection, agency_id, operation_id, CLEARED_SEATS)
    if unread or simulated:
        deadlines.schedule(uow, [Deadline(REST_CLEARED, agency_id, operation_id, uow.now)])


async def _process_chunk(uow: UnitOfWork, operation: Operation, directory: Directory) -> Operation:
    chunk = await operations.find_chunk(uow.connection, operation)
    assert operation.columns is not None  # every running operation was received
    rows = read_rows(chunk.content, operation.columns, chunk.first_line)
    process = import_rows if operation.kind is SeatBatchKind.IMPORT else change_rows
    report = await process(uow, operation, rows, directory)
    await operations.save_results(uow.connection, operation, report.results)
    return _advanced(operation, report, uow)


def _advanced(operation: Operation, report: Report, uow: UnitOfWork) -> Operation:
    return replace(
        operation,
        started_at=operation.started_at or uow.now,
        updated_at=uow.now,
        chunks_done=operation.chunks_done + 1,
        rows=operation.rows + report.rows,
        done=operation.done + report.done,
        unchanged=operation.unchanged + report.unchanged,
        refused=operation.refused + report.refused,
        stop_reason=report.stop_reason,
    )


async def _complete(uow: UnitOfWork, operation: Operation) -> Operation:
    await _delete_rest(uow, operation.agency_id, operation.operation_id)
    due_at = uow.now + ROWS_KEPT
    deadlines.schedule(uow, [Deadline(ROWS_FORGOTTEN, operation.agency_id, operation.operation_id, due_at)])
    if not operation.dry_run:
        uow.publish(publishing.seat_batch_completed(operation))
    state = OperationState.STOPPED if operation.stop_reason else OperationState.COMPLETED
    audit.record(
        uow,
        command=COMMANDS[operation.kind],
        agency_id=operation.agency_id,
        subject=operation.operation_id,
        before={"state": operation.state},
        after={
            "state": state,
            "dry_run": operation.dry_run,
            "rows": operation.rows,
            "done": operation.done,
            "unchanged": operation.unchanged,
            "refused": operation.refused,
        },
        reason=operation.stop_reason,
    )
    return replace(operation, state=state, started_at=operation.started_at or uow.now, updated_at=uow.now)

"""The work on a file: received, worked through chunk by chunk, completed, and its rows forgotten in the end."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from muster_contracts.entitlements import SeatBatchKind
from muster_entitlements import publishing
from muster_entitlements.domain import OperationState
from muster_entitlements.handlers.changes import change_rows
from muster_entitlements.handlers.imports import import_rows
from muster_entitlements.handlers.report import Report
from muster_entitlements.handlers.seats import known_pool
from muster_entitlements.people import Directory
from muster_entitlements.repository import dry_runs, operations
from muster_entitlements.repository.operations import Operation
from muster_entitlements.seat_file import read_rows
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.observability import audit
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

UPLOAD_ABANDONED = "upload-abandoned"
ROWS_FORGOTTEN = "operation-rows-forgotten"
REST_CLEARED = "operation-rest-cleared"

# The names of what files ask for, in the audit.
COMMANDS = {
    SeatBatchKind.IMPORT: "ImportSeats",
    SeatBatchKind.SUSPENSION: "SuspendSeats",
    SeatBatchKind.REVOCATION: "RevokeSeats",
    SeatBatchKind.TRANSFER: "TransferSeats",
}

# Why the rest of a file is not read: the agency has enrolled again since it was sent.
ENROLLMENT_OVER = "enrollment-over"

UPLOAD_PATIENCE = timedelta(hours=1)
ROWS_KEPT = timedelta(days=30)

# What a transaction deletes at the most; a chunk has a quarter of a megabyte.
CLEARED_CHUNKS = 32
CLEARED_SEATS = 5_000


async def work_on(uow: UnitOfWork, agency_id: str, directory: Directory) -> None:
    """Work through the next chunk of the file whose turn it is.

    A file that was sent in an enrollment before the one at hand is stopped: nobody has asked for its seats in this one.
    Rows, events and the place in the file are one transaction: whatever stops it, the work goes on from there.
    """
    operation = await operations.find_next(uow.connection, agency_id)
    if operation is None:
        return  # another process was faster
    pool = await known_pool(uow, agency_id)
    if operation.enrollment_id not in (None, pool.enrollment_id):
        operation = replace(operation, stop_reason=ENROLLMENT_OVER)
    elif operation.chunks_done < operation.chunks:
        operation = await _work_on_chunk(uow, operation, directory)
    if operation.chunks_done == operation.chunks or operation.stop_reason:
        operation = await _complete(uow, operation)
    await operations.save(uow.connection, operation)


async def discard_uploads(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Discard files of which nothing more came."""
    agency_id = due[0].agency_id
    discarded = await operations.discard(uow.connection, agency_id, [deadline.subject for deadline in due])
    deadlines.schedule(uow, [Deadline(ROWS_FORGOTTEN, agency_id, operation_id, uow.now) for operation_id in discarded])


async def discard(uow: UnitOfWork, agency_id: str, operation_id: str) -> None:
    """Forget a file that was not received as a whole."""
    if await operations.discard(uow.connection, agency_id, [operation_id]):
        await _forget_rows(uow, agency_id, operation_id)


async def forget_rows(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Forget what became of the rows of old files, a step of one file at a time; the sums stay."""
    first, *others = due
    deadlines.schedule(uow, others)
    await _forget_rows(uow, first.agency_id, first.subject)


async def clear_rest(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Delete what stopped and dry operations leave behind, a step of one operation at a time."""
    first, *others = due
    deadlines.schedule(uow, others)
    await _clear_rest(uow, first.agency_id, first.subject)


async def _forget_rows(uow: UnitOfWork, agency_id: str, operation_id: str) -> None:
    if await operations.clear_chunks(uow.connection, agency_id, operation_id, CLEARED_CHUNKS):
        deadlines.schedule(uow, [Deadline(ROWS_FORGOTTEN, agency_id, operation_id, uow.now)])


async def _clear_rest(uow: UnitOfWork, agency_id: str, operation_id: str) -> None:
    """The rows beyond its end, and its own view of seats."""
    unread = await operations.clear_chunks(uow.connection, agency_id, operation_id, CLEARED_CHUNKS, unread=True)
    supposed = await dry_runs.clear(uow.connection, agency_id, operation_id, CLEARED_SEATS)
    if unread or supposed:
        deadlines.schedule(uow, [Deadline(REST_CLEARED, agency_id, operation_id, uow.now)])


async def _work_on_chunk(uow: UnitOfWork, operation: Operation, directory: Directory) -> Operation:
    chunk = await operations.find_chunk(uow.connection, operation)
    assert operation.columns is not None  # every operation that runs was received
    rows = read_rows(chunk.content, operation.columns, chunk.first_line)
    work = import_rows if operation.kind is SeatBatchKind.IMPORT else change_rows
    report = await work(uow, operation, rows, directory)
    await operations.keep_results(uow.connection, operation, report.results)
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
    await _clear_rest(uow, operation.agency_id, operation.operation_id)
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

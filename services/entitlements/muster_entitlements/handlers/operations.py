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
from muster_entitlements.people import Directory
from muster_entitlements.repository import operations
from muster_entitlements.repository.operations import Operation
from muster_entitlements.seat_file import read_rows
from muster_runtime import audit, deadlines
from muster_runtime.db import UnitOfWork
from muster_runtime.deadlines import Deadline

UPLOAD_ABANDONED = "upload-abandoned"
ROWS_FORGOTTEN = "operation-rows-forgotten"

# The names of what files ask for, in the audit.
COMMANDS = {
    SeatBatchKind.IMPORT: "ImportSeats",
    SeatBatchKind.SUSPENSION: "SuspendSeats",
    SeatBatchKind.REVOCATION: "RevokeSeats",
    SeatBatchKind.TRANSFER: "TransferSeats",
}

UPLOAD_PATIENCE = timedelta(hours=1)
ROWS_KEPT = timedelta(days=30)


async def work_on(uow: UnitOfWork, agency_id: str, directory: Directory) -> None:
    """Work through the next chunk of the file whose turn it is.

    Rows, events and the place in the file are one transaction: whatever stops it, the work goes on from there.
    """
    operation = await operations.find_next(uow.connection, agency_id)
    if operation is None:
        return  # another process was faster
    if operation.chunks_done < operation.chunks:
        operation = await _work_on_chunk(uow, operation, directory)
    if operation.chunks_done == operation.chunks or operation.stop_reason:
        operation = await _complete(uow, operation)
    await operations.save(uow.connection, operation)


async def discard_uploads(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Discard files of which nothing more came."""
    await operations.discard(uow.connection, due[0].agency_id, [deadline.subject for deadline in due])


async def forget_rows(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Forget what became of the rows of old files; the sums stay."""
    await operations.forget_rows(uow.connection, due[0].agency_id, [deadline.subject for deadline in due])


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
    await operations.forget_unread(uow.connection, operation)
    due_at = uow.now + ROWS_KEPT
    await deadlines.schedule(uow, [Deadline(ROWS_FORGOTTEN, operation.agency_id, operation.operation_id, due_at)])
    if not operation.dry_run:
        uow.publish(publishing.seat_batch_completed(operation))
    state = OperationState.STOPPED if operation.stop_reason else OperationState.COMPLETED
    await audit.record(
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

"""The progress of a file: how far it is, how fast, and how long it may still take."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from muster_contracts.entitlements import SeatBatchKind
from muster_entitlements.domain.operations import OnLimit, Operation, OperationState
from muster_entitlements.replies import OperationReply

START = datetime(2025, 8, 6, tzinfo=UTC)

RUNNING = Operation(
    agency_id="NASA",
    enrollment_id="enr_1",
    operation_id="bat_1",
    kind=SeatBatchKind.IMPORT,
    state=OperationState.RUNNING,
    dry_run=False,
    on_limit=OnLimit.FILL,
    directory=False,
    columns=None,
    actor="operator",
    correlation_id="cor_1",
    created_at=START,
    started_at=START,
    updated_at=START + timedelta(seconds=1),
    chunks=8,
    chunks_done=2,
    rows=10_000,
    done=9_000,
    unchanged=700,
    refused=300,
    stop_reason=None,
)


def test_the_rate_and_the_time_left_follow_from_the_rows_done_so_far() -> None:
    reply = OperationReply.of(RUNNING, START + timedelta(seconds=2))
    assert (reply.progress, reply.rows_per_second, reply.seconds_left) == (0.25, 5_000.0, 6.0)
    assert (reply.assigned, reply.changed, reply.already_held, reply.refused) == (9_000, 0, 700, 300)


def test_a_finished_operation_has_no_time_left() -> None:
    over = replace(RUNNING, state=OperationState.STOPPED, chunks_done=2)
    reply = OperationReply.of(over, START + timedelta(days=9))
    assert (reply.progress, reply.rows_per_second, reply.seconds_left) == (1.0, 10_000.0, 0.0)


@pytest.mark.parametrize("chunks", [0, 8])
def test_before_the_first_chunk_rate_and_time_left_are_unknown(chunks: int) -> None:
    waiting = replace(RUNNING, chunks=chunks, chunks_done=0, rows=0, started_at=None, updated_at=None)
    reply = OperationReply.of(waiting, START + timedelta(seconds=2))
    assert (reply.progress, reply.rows_per_second, reply.seconds_left) == (0.0, None, None)


def test_files_other_than_imports_change_seats() -> None:
    reply = OperationReply.of(replace(RUNNING, kind=SeatBatchKind.SUSPENSION), START)
    assert (reply.assigned, reply.changed) == (0, 9_000)

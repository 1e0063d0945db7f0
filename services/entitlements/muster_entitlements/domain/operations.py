"""Operations: the processing of a seat file."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from muster_contracts.entitlements import SeatBatchKind
from muster_entitlements.domain.seat_file import Columns

# The most files of an agency that may be received or processed at once.
MOST_UNFINISHED = 20

# The most rows of an agency's files whose results may be kept at once, some 10 GB: the largest agency can send all of
# its people every day, and try each file first.
MOST_KEPT_ROWS = 100_000_000


class OperationState(StrEnum):
    """The state of the processing of a file."""

    RECEIVING = "receiving"
    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"


class OnLimit(StrEnum):
    """What an import does when no seat is left: stop, or refuse the person and continue."""

    STOP = "stop"
    FILL = "fill"


@dataclass(frozen=True, slots=True)
class Operation:
    """The processing of one file. `done` counts the rows that made their change.

    `enrollment_id` is the enrollment in which the file was sent; None in rows that are older than this column.
    """

    agency_id: str
    operation_id: str
    enrollment_id: str | None
    kind: SeatBatchKind
    state: OperationState
    dry_run: bool
    on_limit: OnLimit
    directory: bool
    columns: Columns | None
    actor: str
    correlation_id: str
    created_at: datetime
    started_at: datetime | None
    updated_at: datetime | None
    chunks: int
    chunks_done: int
    rows: int
    done: int
    unchanged: int
    refused: int
    stop_reason: str | None

"""Operations on seat files: their position in the queue, their chunks, and the result of each row."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from muster_contracts.entitlements import SeatBatchKind
from muster_entitlements.domain.operations import OnLimit, Operation, OperationState
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.seat_file import CHUNK_LINES, Chunk, Columns
from muster_runtime.context import Context
from muster_runtime.database.transactions import Connection

_OPERATION = """
    select
        agency_id, operation_id, enrollment_id, kind, state, dry_run, on_limit, directory, columns, unit_column,
        actor, correlation_id, created_at, started_at, updated_at, chunks, chunks_done, rows, done, unchanged, refused,
        stop_reason
    from operation
"""


async def add_operation(
    connection: Connection,
    operation_id: str,
    pool: Pool,
    kind: SeatBatchKind,
    context: Context,
    now: datetime,
    *,
    dry_run: bool,
    on_limit: OnLimit,
    directory: bool,
) -> None:
    """Add an operation that receives a file, for the pool's enrollment."""
    await connection.execute(
        """
        insert into operation (
            agency_id, operation_id, enrollment_id, kind, state, dry_run, on_limit, directory, actor, correlation_id,
            created_at
        )
        values ($1, $2, $3, $4, 'receiving', $5, $6, $7, $8, $9, $10)
        """,
        pool.agency_id,
        operation_id,
        pool.enrollment_id,
        kind,
        dry_run,
        on_limit,
        directory,
        context.actor,
        context.correlation_id,
        now,
    )


async def add_chunk(connection: Connection, agency_id: str, operation_id: str, number: int, chunk: Chunk) -> bool:
    """Add a chunk of the file; False if the file was discarded meanwhile."""
    tag = await connection.execute(
        """
        insert into operation_chunk (agency_id, operation_id, number, first_line, content)
        select agency_id, operation_id, $3, $4, $5
        from operation
        where agency_id = $1 and operation_id = $2 and state = 'receiving'
        """,
        agency_id,
        operation_id,
        number,
        chunk.first_line,
        chunk.content,
    )
    return tag == "INSERT 0 1"


async def save_accepted(
    connection: Connection, agency_id: str, operation_id: str, columns: Columns, chunks: int
) -> bool:
    """Queue a complete file for processing; False if it was discarded meanwhile."""
    tag = await connection.execute(
        """
        update operation
        set state = 'running', columns = $3, unit_column = $4, chunks = $5, place = nextval('operation_place')
        where agency_id = $1 and operation_id = $2 and state = 'receiving'
        """,
        agency_id,
        operation_id,
        [columns.count, columns.key, columns.to, columns.name],
        columns.unit,
        chunks,
    )
    return tag == "UPDATE 1"


async def delete_incomplete(connection: Connection, agency_id: str, operation_ids: Sequence[str]) -> list[str]:
    """Delete operations whose file is incomplete; returns those that no longer exist, whose chunks may remain."""
    await connection.execute(
        "delete from operation where agency_id = $1 and operation_id = any($2::text[]) and state = 'receiving'",
        agency_id,
        operation_ids,
    )
    rows = await connection.fetch(
        """
        select discarded.operation_id
        from unnest($2::text[]) as discarded (operation_id)
        where
            not exists (
                select from operation as o where o.agency_id = $1 and o.operation_id = discarded.operation_id
            )
        """,
        agency_id,
        operation_ids,
    )
    return [row["operation_id"] for row in rows]


async def list_agencies(connection: Connection) -> list[str]:
    """The agencies that have a file to process, longest wait first."""
    rows = await connection.fetch(
        "select agency_id from operation where state = 'running' group by agency_id order by min(place)"
    )
    return [row["agency_id"] for row in rows]


async def find_oldest_wait(connection: Connection) -> datetime | None:
    """Since when the oldest file has waited to be processed; None if none waits."""
    instant: datetime | None = await connection.fetchval(
        "select min(created_at) from operation where state = 'running'"
    )
    return instant


async def count_unfinished(connection: Connection, agency_id: str) -> int:
    """How many files of an agency are being received or processed."""
    unfinished: int = await connection.fetchval(
        "select count(*) from operation where agency_id = $1 and state in ('receiving', 'running')", agency_id
    )
    return unfinished


async def count_kept_rows(connection: Connection, agency_id: str, since: datetime) -> int:
    """How many rows the agency's files have that were processed at or after an instant; at most, if not yet."""
    rows: int = await connection.fetchval(
        """
        select coalesce(sum(case when o.state = 'running' then c.first_line + $3 else o.rows end), 0)::bigint
        from operation as o
        left join operation_chunk as c
            on o.agency_id = c.agency_id and o.operation_id = c.operation_id and o.chunks - 1 = c.number
        where o.agency_id = $1 and (o.state = 'running' or o.updated_at >= $2)
        """,
        agency_id,
        since,
        CHUNK_LINES,
    )
    return rows


async def find_operation(connection: Connection, agency_id: str, operation_id: str) -> Operation | None:
    """An operation by its ID."""
    row = await connection.fetchrow(f"{_OPERATION} where agency_id = $1 and operation_id = $2", agency_id, operation_id)
    return _to_operation(row) if row else None


async def find_next(connection: Connection, agency_id: str) -> Operation | None:
    """The next file of an agency to process."""
    row = await connection.fetchrow(
        f"{_OPERATION} where agency_id = $1 and state = 'running' order by place limit 1",
        agency_id,
    )
    return _to_operation(row) if row else None


async def find_chunk(connection: Connection, operation: Operation) -> Chunk:
    """The next chunk of an operation."""
    row = await connection.fetchrow(
        """
        select first_line, content from operation_chunk
        where agency_id = $1 and operation_id = $2 and number = $3
        """,
        operation.agency_id,
        operation.operation_id,
        operation.chunks_done,
    )
    assert row is not None  # a chunk is added before its operation runs, and deleted after that completes
    return Chunk(row["first_line"], row["content"])


async def save_results(connection: Connection, operation: Operation, results: bytes) -> None:
    """Replace the content of the next chunk with the results of its rows."""
    await connection.execute(
        """
        update operation_chunk set content = null, results = $4
        where agency_id = $1 and operation_id = $2 and number = $3
        """,
        operation.agency_id,
        operation.operation_id,
        operation.chunks_done,
        results,
    )


async def save_operation(connection: Connection, operation: Operation) -> None:
    """Store an operation's state, progress, and totals."""
    await connection.execute(
        """
        update operation
        set
            state = $3, started_at = $4, updated_at = $5, chunks_done = $6,
            rows = $7, done = $8, unchanged = $9, refused = $10, stop_reason = $11
        where agency_id = $1 and operation_id = $2
        """,
        operation.agency_id,
        operation.operation_id,
        operation.state,
        operation.started_at,
        operation.updated_at,
        operation.chunks_done,
        operation.rows,
        operation.done,
        operation.unchanged,
        operation.refused,
        operation.stop_reason,
    )


async def delete_chunks(
    connection: Connection, agency_id: str, operation_id: str, limit: int, *, unread: bool = False
) -> bool:
    """Delete the next chunks of a file, or only unread ones; True while there may be more."""
    tag = await connection.execute(
        """
        delete from operation_chunk
        where
            agency_id = $1 and operation_id = $2
            and number = any(array(
                select number
                from operation_chunk
                where agency_id = $1 and operation_id = $2 and (content is not null or not $4)
                order by number
                limit $3
            ))
        """,
        agency_id,
        operation_id,
        limit,
        unread,
    )
    return tag == f"DELETE {limit}"


def _to_operation(row: Any) -> Operation:
    fields = dict(row)
    unit = fields.pop("unit_column")
    columns = Columns(*(*row["columns"], unit)) if row["columns"] is not None else None
    return Operation(
        **{
            **fields,
            "kind": SeatBatchKind(row["kind"]),
            "state": OperationState(row["state"]),
            "on_limit": OnLimit(row["on_limit"]),
            "columns": columns,
        }
    )

"""The changes that dry runs have simulated so far."""

from collections.abc import Mapping, Sequence

from muster_entitlements.domain.operations import Operation
from muster_entitlements.domain.seats import SeatState
from muster_runtime.database.transactions import Connection


async def find_simulated(
    connection: Connection, operation: Operation, subject_refs: Sequence[str]
) -> Mapping[str, tuple[str, SeatState]]:
    """The changes that a dry run has simulated so far: seat ID and state by subject."""
    rows = await connection.fetch(
        """
        select subject_ref, seat_id, state
        from dry_run_seat
        where agency_id = $1 and operation_id = $2 and subject_ref = any($3::text[])
        """,
        operation.agency_id,
        operation.operation_id,
        subject_refs,
    )
    return {row["subject_ref"]: (row["seat_id"], SeatState(row["state"])) for row in rows}


async def save_simulated(
    connection: Connection, operation: Operation, seats: Mapping[str, tuple[str, SeatState]]
) -> None:
    """Store changes that a dry run simulates: seat ID and state by subject."""
    await connection.execute(
        """
        insert into dry_run_seat (agency_id, operation_id, subject_ref, seat_id, state)
        select $1, $2, * from unnest($3::text[], $4::text[], $5::text[])
        on conflict (agency_id, operation_id, subject_ref)
        do update set seat_id = excluded.seat_id, state = excluded.state
        """,
        operation.agency_id,
        operation.operation_id,
        list(seats),
        [seat_id for seat_id, _ in seats.values()],
        [state for _, state in seats.values()],
    )


async def delete_simulated(connection: Connection, agency_id: str, operation_id: str, limit: int) -> bool:
    """Delete the next changes that a dry run has simulated; True while there may be more."""
    tag = await connection.execute(
        """
        delete from dry_run_seat
        where
            agency_id = $1 and operation_id = $2
            and subject_ref = any(array( -- once; joined, a table without statistics is read again for each of its rows
                select subject_ref
                from dry_run_seat
                where agency_id = $1 and operation_id = $2
                order by subject_ref
                limit $3
            ))
        """,
        agency_id,
        operation_id,
        limit,
    )
    return tag == f"DELETE {limit}"

"""The changes of seats that entitlements lost, found in the topic's events and its table of seats."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from muster_contracts.entitlements import SeatReinstated, SeatRevoked, SeatSuspended, SeatTransferred
from muster_operator.databases.provisioning import Access
from muster_operator.reconcile.lost_changes import LostChanges

SEAT: dict[str, Any] = {"agency_id": "NASA", "seat_id": "seat_1"}
SUSPENDED = SeatSuspended(**SEAT, subject_ref="sub_ada", reason="leave")
REINSTATED = SeatReinstated(**SEAT, subject_ref="sub_ada")
TO_BOB = SeatTransferred(**SEAT, subject_ref="sub_bob", from_subject_ref="sub_ada")
REVOKED = SeatRevoked(**SEAT, subject_ref="sub_bob", reason="requested")


@pytest.fixture
async def seats(
    service_database: Callable[..., Awaitable[Access]],
) -> AsyncIterator["asyncpg.Connection[Any]"]:
    access = await service_database("entitlements")
    connection = await asyncpg.connect(access.admin_dsn, server_settings={"search_path": "entitlements"})
    yield connection
    await connection.close()


@pytest.mark.parametrize(
    ("state", "holder", "events", "lost"),
    [
        ("active", "sub_ada", [SUSPENDED], {"suspension"}),
        ("active", "sub_ada", [SUSPENDED, REINSTATED], set()),
        ("suspended", "sub_ada", [SUSPENDED, REINSTATED], {"reinstatement"}),
        ("active", "sub_ada", [TO_BOB], {"transfer"}),
        ("active", "sub_bob", [TO_BOB], set()),
        # Its suspension was lost, and it was transferred since: nobody has to suspend the new holder.
        ("active", "sub_bob", [SUSPENDED, TO_BOB], set()),
        ("active", "sub_bob", [TO_BOB, REVOKED], {"revocation"}),
        ("revoked", "sub_bob", [SUSPENDED, TO_BOB, REVOKED], set()),
    ],
)
async def test_only_what_the_table_lacks_is_lost(
    seats: "asyncpg.Connection[Any]", state: str, holder: str, events: list[Any], lost: set[str]
) -> None:
    await seats.execute(
        """
        insert into seat (agency_id, seat_id, subject_ref, state, assigned_at)
        values ('NASA', 'seat_1', $1, $2, '2025-08-06Z')
        """,
        holder,
        state,
    )
    one_by_one, together = LostChanges(), LostChanges()
    for event in events:
        await one_by_one.note(seats, [event])
    await together.note(seats, events)
    assert one_by_one.named() == together.named() == {(("NASA", "seat_1"), name) for name in lost}

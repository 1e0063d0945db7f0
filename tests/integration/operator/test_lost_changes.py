"""The changes of seats that entitlements lost, found in the topic's events and its table of seats."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from muster_contracts import topics
from muster_contracts.entitlements import SeatReinstated, SeatRevoked, SeatSuspended, SeatTransferred
from muster_local.servers import kafka_at
from muster_operator.databases.provisioning import Access
from muster_operator.reconcile.cli import read_topics
from muster_operator.reconcile.lost_changes import LostChanges
from muster_operator.target import Target
from muster_operator.topics import create_topics, delete_topics
from muster_runtime.clock import SystemClock
from tests.support.topics import Producer

SEAT: dict[str, Any] = {"agency_id": "NASA", "seat_id": "seat_1"}
SUSPENDED = SeatSuspended(**SEAT, subject_ref="sub_ada", reason="leave")
REINSTATED = SeatReinstated(**SEAT, subject_ref="sub_ada")
TO_BOB = SeatTransferred(**SEAT, subject_ref="sub_bob", from_subject_ref="sub_ada")
REVOKED = SeatRevoked(**SEAT, subject_ref="sub_bob", reason="requested")

ADD_SEAT = """
insert into seat (agency_id, seat_id, subject_ref, state, assigned_at)
values ('NASA', 'seat_1', $1, $2, '2025-08-06Z')
"""


@pytest.fixture
async def access(service_database: Callable[..., Awaitable[Access]]) -> Access:
    return await service_database("entitlements")


@pytest.fixture
async def seats(access: Access) -> AsyncIterator["asyncpg.Connection[Any]"]:
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
    await seats.execute(ADD_SEAT, holder, state)
    one_by_one, together = LostChanges(), LostChanges()
    for event in events:
        await one_by_one.note(seats, [event])
    await together.note(seats, events)
    assert one_by_one.named() == together.named() == {(("NASA", "seat_1"), name) for name in lost}


async def test_what_a_seat_lacked_is_forgotten_once_it_is_revoked_meanwhile(seats: "asyncpg.Connection[Any]") -> None:
    await seats.execute(ADD_SEAT, "sub_ada", "active")
    changes = LostChanges()
    await changes.note(seats, [SUSPENDED])
    assert changes.named() == {(("NASA", "seat_1"), "suspension")}
    await seats.execute("update seat set state = 'revoked'")
    await changes.note(seats, [REVOKED])
    assert changes.named() == frozenset()


async def test_a_change_that_the_topic_repeats_behind_later_ones_is_not_lost(
    seats: "asyncpg.Connection[Any]", access: Access, kafka_bootstrap: str, topic_prefix: str
) -> None:
    """Two relays may have written it."""
    await seats.execute(ADD_SEAT, "sub_ada", "active")
    kafka = kafka_at(kafka_bootstrap)
    await create_topics(kafka, topic_prefix, topics().values(), partitions=1)
    target = Target({}, "", access.admin_dsn, {"kafka_bootstrap": kafka_bootstrap}, topic_prefix)
    async with Producer(kafka, topic_prefix) as producer:
        suspended, _ = await producer.publish([SUSPENDED, REINSTATED], SystemClock().now())
        await producer.put(suspended, SUSPENDED)
        assert (await read_topics(target)).lost == frozenset()
        await producer.publish([SUSPENDED], SystemClock().now())
        assert (await read_topics(target)).lost == {(("NASA", "seat_1"), "suspension")}
    await delete_topics(kafka, [topic_prefix + name for name in topics()])

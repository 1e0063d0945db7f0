"""A consumer joins with a session that the broker allows, skips nothing, and is ready without a partition."""

import pytest

from muster_contracts.entitlements import SeatAssigned
from muster_runtime.messaging import offsets
from muster_runtime.messaging.consumer import subscription
from muster_runtime.process.roles import Role
from muster_runtime.settings import Settings
from tests.integration.runtime.core.probe.service import build
from tests.support.eventually import eventually
from tests.support.services import PARTITIONS, RunningService, ServiceRunner

# No broker allows so short a session.
REFUSED_MS = 1

PARTITION = ("muster.entitlements.seat", 0)


def seat(seat_id: str) -> SeatAssigned:
    return SeatAssigned(agency_id="NASA", seat_id=seat_id, subject_ref="sub_1")


async def have(probe: RunningService, *expected: str) -> bool:
    rows = await probe.admin.fetch("select seat_id from effect order by id")
    found = [row["seat_id"] for row in rows]
    assert found == list(expected), found
    return True


async def test_a_consumer_asks_for_a_longer_session_when_the_broker_refuses_a_short_one(
    run_service: ServiceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "SESSIONS_MS", (REFUSED_MS, *subscription.SESSIONS_MS))
    probe = await run_service(build, Settings)
    await probe.publish(seat("a"))
    await eventually(lambda: have(probe, "a"))


async def test_records_that_arrive_during_a_stop_are_left_to_the_next_owner(run_service: ServiceRunner) -> None:
    """The client's position is past them, as it is past a transaction's marker, which is not a record."""
    probe = await run_service(build, Settings)
    await probe.publish(seat("a"))
    await eventually(lambda: have(probe, "a"))
    consumer = probe.process.consumer
    assert consumer is not None
    consumer._stopping = True
    await probe.publish(seat("b"))

    async def is_passed() -> bool:
        return await consumer.lag() == 0

    await eventually(is_passed)
    await consumer._look_back()
    await consumer.stop()
    await probe.publish(seat("c"))
    await run_service(build, Settings, roles=frozenset({Role.CONSUMER}), beside=probe)
    await eventually(lambda: have(probe, "a", "b", "c"))


async def test_a_member_that_has_lost_a_partition_keeps_no_lower_offset_than_its_new_owner(
    idle_probe: RunningService,
) -> None:
    """Both have applied the records from 10 on, the new owner more of them."""
    async with idle_probe.runtime.database.connection() as connection:
        server = await offsets.server(connection)
        for first, after in ((0, 10), (10, 50), (10, 20)):
            assert await offsets.keep(connection, "group", {PARTITION: (first, after)}, server) == {PARTITION}
        assert await offsets.begins(connection, "group") == {PARTITION: 50}


async def test_a_member_without_a_partition_is_ready(run_service: ServiceRunner) -> None:
    first = await run_service(build, Settings)
    members = [
        first,
        *[
            await run_service(build, Settings, roles=frozenset({Role.CONSUMER}), beside=first)
            for _ in range(PARTITIONS)
        ],
    ]

    clients = [each.process.consumer._client() for each in members if each.process.consumer]

    def partitions() -> list[int]:
        return sorted(len(client.assignment()) for client in clients)

    await eventually(lambda: partitions() == [0, *[1] * PARTITIONS])
    # A static member would leave the group only when its session ends, and a pod's successor has another name.
    assert {client._group_instance_id for client in clients} == {None}
    for member in members:
        assert (await member.client.get("/health/ready")).json()["reasons"] == []

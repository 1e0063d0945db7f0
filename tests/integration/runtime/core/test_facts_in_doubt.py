"""After a failover, no deadline acts before the relay has compared the topics with the new server's database."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from aiokafka import TopicPartition

from muster_contracts.entitlements import SeatAssigned
from muster_local.servers import kafka_at
from muster_runtime.messaging import comparison, trust
from muster_runtime.messaging.kafka_topics import TopicFaults
from muster_runtime.messaging.lease import RELAY, RELAY_COMPACTED
from muster_runtime.messaging.restore_guard import DatabaseRestored, refuse_restored
from muster_runtime.messaging.trust import Trust
from muster_runtime.process.roles import ALL_ROLES, Role
from muster_runtime.scheduling import deadlines, hold
from muster_runtime.scheduling.deadlines import Deadline
from muster_runtime.service import Service
from muster_runtime.settings import Settings
from tests.integration.runtime.core.probe.service import SCHEMA, build
from tests.integration.runtime.core.relays import (
    are_released,
    lose_commits,
    outbox_is_empty,
    relay_all,
    relaying,
    release_deadlines,
    write,
)
from tests.integration.runtime.core.test_restore_guard import raise_epoch
from tests.integration.runtime.core.test_scheduler import START, note_looks, revoked, set_deadlines
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.failover import fail_over
from tests.support.services import RunningService, ServiceRunner

DUE = Deadline("revoke", "NASA", "seat_1", START)
QUIET = "muster.entitlements.feature"
WARNING = "deadlines wait: Postgres restarted or failed over, and the relay has not looked for lost commits yet"


def build_with_a_quiet_topic(settings: Settings) -> Service:
    """The probe as a service with two topics of facts, of which it writes one."""
    return Service(schema=SCHEMA, settings=settings, produces=[SeatAssigned.topic, QUIET])


async def in_doubt(probe: RunningService) -> bool:
    return await hold.are_facts_in_doubt(probe.admin)


async def is_certain(probe: RunningService) -> bool:
    return not await in_doubt(probe)


@pytest.fixture
async def failed_over(idle_probe: RunningService) -> RunningService:
    """A probe without duties, on a server on which no relay has compared; DUE is due."""
    idle_probe.clock.move(START)
    await write(idle_probe, "NASA", "one", "two")
    await relay_all(idle_probe)
    await set_deadlines(idle_probe, DUE)
    await fail_over(idle_probe.admin)
    return idle_probe


def hide_leaders(monkeypatch: pytest.MonkeyPatch, unled: Sequence[TopicPartition]) -> Sequence[Sequence[str]]:
    """Compare as if these partitions had no leader. The result grows by the topics of each comparison."""
    compared: list[Sequence[str]] = []

    async def refuse(*arguments: Any) -> Any:
        found = await refuse_restored(*arguments)
        compared.append(arguments[-1])
        return [*found, *unled]

    monkeypatch.setattr("muster_runtime.messaging.trust.refuse_restored", refuse)
    return compared


async def test_a_deadline_waits_until_the_relay_has_compared_and_is_then_handled_at_once(
    failed_over: RunningService, run_service: ServiceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = note_looks(monkeypatch)
    roles = frozenset({Role.SCHEDULER})
    service = await run_service(build, Settings, beside=failed_over, clock=failed_over.clock, roles=roles)
    await eventually(lambda: _is(looks[:2], [True, True]), timeout=20)
    assert all(looks)
    assert WARNING in (await service.client.get("/health/ready")).json()["warnings"]
    assert await failed_over.admin.fetchval("select count(*) from deadline") == 1

    async with relaying(failed_over):
        await eventually(lambda: _is_revoked(failed_over))
    assert WARNING not in (await service.client.get("/health/ready")).json()["warnings"]


async def test_a_deadline_that_was_found_before_the_failover_is_not_taken_after_it(failed_over: RunningService) -> None:
    async with failed_over.runtime.database.write("NASA", context=CONTEXT) as uow:
        assert await deadlines.take(uow, [DUE]) == []
    async with relaying(failed_over):
        await eventually(lambda: is_certain(failed_over))
    async with failed_over.runtime.database.write("NASA", context=CONTEXT) as uow:
        assert await deadlines.take(uow, [DUE]) == [DUE]


async def test_if_commits_are_lost_no_deadline_is_handled_before_they_are_held(
    failed_over: RunningService, run_service: ServiceRunner
) -> None:
    await lose_commits(failed_over)
    await run_service(build, Settings, beside=failed_over, clock=failed_over.clock, roles=ALL_ROLES)
    await eventually(lambda: hold.held_since(failed_over.admin))
    assert await failed_over.admin.fetchval("select count(*) from deadline") == 1
    assert await in_doubt(failed_over)


async def test_every_lane_must_have_compared(failed_over: RunningService) -> None:
    async with relaying(failed_over):
        for each in (RELAY, RELAY_COMPACTED):
            await eventually(lambda: _has_compared(failed_over, each))  # noqa: B023 - awaited in turn
    for each in (RELAY, RELAY_COMPACTED):
        await failed_over.admin.execute(
            "update topic_comparison set server_started_at = server_started_at - interval '1 day' where lane = $1", each
        )
        assert await in_doubt(failed_over)
        async with relaying(failed_over):
            await eventually(lambda: is_certain(failed_over))


async def test_a_missing_topic_keeps_the_facts_in_doubt(failed_over: RunningService) -> None:
    missing = [failed_over.topic_prefix + SeatAssigned.topic]
    async with relaying(failed_over, faults=lambda: TopicFaults(missing=missing)):
        await eventually(lambda: _has_compared(failed_over, RELAY_COMPACTED))
        await eventually(lambda: _is_led(failed_over, RELAY))
        assert await in_doubt(failed_over)
        missing.clear()
        await eventually(lambda: is_certain(failed_over))


async def test_a_partition_without_a_leader_keeps_the_facts_in_doubt(
    failed_over: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is unknown. Once it has a leader, the lane compares it, though nothing waits to be sent to it."""
    unled = [TopicPartition(failed_over.topic_prefix + SeatAssigned.topic, 0)]
    compared = hide_leaders(monkeypatch, unled)
    async with relaying(failed_over):
        await eventually(lambda: _has_compared(failed_over, RELAY_COMPACTED))
        await eventually(lambda: _is(any(SeatAssigned.topic in each for each in compared), True))
        assert await in_doubt(failed_over)
        unled.clear()
        await eventually(lambda: is_certain(failed_over))


async def test_a_partition_without_a_leader_is_compared_though_its_lane_sends_only_to_other_topics(
    run_service: ServiceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that sends to some topics refreshes only those."""
    probe = await run_service(build_with_a_quiet_topic, Settings, roles=frozenset())
    await write(probe, "NASA", "one")
    await relay_all(probe)
    await fail_over(probe.admin)
    unled = [TopicPartition(probe.topic_prefix + QUIET, 0)]
    hide_leaders(monkeypatch, unled)
    await write(probe, "NASA", "two")
    async with relaying(probe):
        await eventually(lambda: outbox_is_empty(probe))
        assert await in_doubt(probe)
        unled.clear()
        await eventually(lambda: is_certain(probe))


async def test_a_process_that_relays_and_raises_the_epoch_can_release_the_deadlines(run_service: ServiceRunner) -> None:
    """Its lanes, which have compared on this server, compare again within seconds."""
    service = await run_service(build, Settings, roles=ALL_ROLES)
    for lane in (RELAY, RELAY_COMPACTED):
        await eventually(lambda: _has_compared(service, lane))  # noqa: B023 - awaited in turn
    await raise_epoch(service)
    await eventually(lambda: are_released(service))


async def test_after_a_raised_epoch_every_lane_must_compare_again(idle_probe: RunningService) -> None:
    """Even if no lane has found the loss, as after a restore while nothing ran."""
    async with relaying(idle_probe):
        for lane in (RELAY, RELAY_COMPACTED):
            await eventually(lambda: _has_compared(idle_probe, lane))  # noqa: B023 - awaited in turn
    await raise_epoch(idle_probe)
    assert (await release_deadlines(idle_probe)).status_code == 409
    async with relaying(idle_probe):
        await eventually(lambda: are_released(idle_probe))


async def test_a_lane_compares_again_once_one_in_another_process_has_found_a_loss(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "LOOK_SECONDS", 0.0)
    await write(idle_probe, "NASA", "one", "two")
    await relay_all(idle_probe)
    lane = compacted_lane(idle_probe)
    await lane.check()
    await lose_commits(idle_probe)
    await lane.check()  # on a server that it trusts
    await comparison.forget(idle_probe.runtime.database, RELAY)
    with pytest.raises(DatabaseRestored):
        await lane.check()


async def test_a_comparison_that_runs_while_another_lane_finds_a_loss_does_not_count(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane, compared = compacted_lane(idle_probe), 0

    async def refuse(*arguments: Any) -> Any:
        nonlocal compared
        compared += 1
        if compared == 1:
            lane.forget()
        return await refuse_restored(*arguments)

    monkeypatch.setattr("muster_runtime.messaging.trust.refuse_restored", refuse)
    for _ in range(3):
        await lane.check()
    assert compared == 2


async def test_a_late_note_of_a_comparison_on_an_earlier_server_changes_nothing(idle_probe: RunningService) -> None:
    database = idle_probe.runtime.database
    await compacted_lane(idle_probe).check()
    assert await _has_compared(idle_probe, RELAY_COMPACTED)
    assert database.server is not None
    await comparison.note(database, RELAY_COMPACTED, database.server - timedelta(days=1))
    assert await is_certain(idle_probe)


def compacted_lane(probe: RunningService) -> Trust:
    """What the lane of the compacted topics trusts; its relay does not run."""
    database, settings = probe.runtime.database, probe.runtime.settings
    kafka, topics = kafka_at(settings.kafka_bootstrap), list(probe.runtime.service.produces)
    return Trust(database, kafka, settings.topic_prefix, topics, TopicFaults, lane=RELAY_COMPACTED, own=topics[1:])


async def test_only_the_worker_role_may_note_a_comparison(idle_probe: RunningService) -> None:
    rights = await idle_probe.admin.fetch(
        """
        select role, right_name
        from unnest(array['api', 'worker']) as role
        cross join unnest(array['select', 'insert', 'update', 'delete']) as right_name
        where has_table_privilege('probe_' || role, 'topic_comparison', right_name)
        order by role, right_name
        """
    )
    expected = [("api", "select"), ("worker", "insert"), ("worker", "select"), ("worker", "update")]
    assert [tuple(row) for row in rights] == expected


async def _has_compared(probe: RunningService, lane: str) -> bool:
    compared: bool = await probe.admin.fetchval(
        "select server_started_at = pg_postmaster_start_time() from topic_comparison where lane = $1", lane
    )
    return compared


async def _is_led(probe: RunningService, duty: str) -> bool:
    return bool(await probe.admin.fetchval("select true from lease where duty = $1", duty))


async def _is(found: object, expected: object) -> bool:
    return found == expected


async def _is_revoked(probe: RunningService) -> bool:
    return await revoked(probe) == [("NASA", "seat_1", START)]

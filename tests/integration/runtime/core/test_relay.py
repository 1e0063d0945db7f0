"""The relay: everything reaches Kafka, in each stream's order, whatever commits late and whoever dies."""

import asyncio
import random
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import pytest
from aiokafka import TopicPartition

from muster_contracts import topics
from muster_contracts.entitlements import PersonRecorded, SeatAssigned
from muster_local.servers import kafka_at
from muster_operator.topics import create_topics, delete_topics
from muster_runtime.messaging import lane, trust
from muster_runtime.messaging import relay as relay_
from muster_runtime.messaging.kafka_topics import TopicFaults
from muster_runtime.messaging.lease import LEASE_SECONDS, RENEW_SECONDS
from muster_runtime.messaging.restore_guard import refuse_restored
from tests.integration.runtime.core.conftest import ProbeStarter, put_unreadable
from tests.integration.runtime.core.relays import outbox_is_empty, relaying, seat, write
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.services import PARTITIONS, RunningService
from tests.support.topics import Reader


async def test_events_keep_their_agencys_order_under_concurrent_writers(probe: RunningService) -> None:
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    dice = random.Random(seed)
    agencies = ["NASA", "DOE", "EPA"]

    async def one(number: int) -> None:
        agency = dice.choice(agencies)
        try:
            async with probe.runtime.database.write(agency, context=CONTEXT) as uow:
                for part in range(dice.randint(1, 700)):
                    uow.publish(seat(agency, f"{number}-{part}"))
                if dice.random() < 0.2:
                    raise asyncio.CancelledError  # this transaction rolls back
                await uow.connection.execute("select pg_sleep($1)", dice.random() / 50)
        except asyncio.CancelledError:
            pass

    await asyncio.gather(*(one(number) for number in range(40)))
    await eventually(lambda: outbox_is_empty(probe))
    kept = await probe.admin.fetch("select agency_id, last_sequence from stream")
    published = await probe.published(SeatAssigned)
    for row in kept:
        sequences = [e.envelope.sequence for e in published if e.envelope.agency_id == row["agency_id"]]
        assert sequences == list(range(1, row["last_sequence"] + 1))


async def test_a_run_that_commits_late_with_a_low_id_is_relayed(probe: RunningService) -> None:
    database = probe.runtime.database
    async with database.write("NASA", context=CONTEXT) as late:
        late.publish(seat("NASA", "late"))
        await late.flush()
        await write(probe, "DOE", "early")
        await eventually(lambda: _seats(probe, {"early"}))
    await eventually(lambda: _seats(probe, {"early", "late"}))


async def _seats(probe: RunningService, expected: set[str]) -> bool:
    return {event.data.seat_id for event in await probe.published(SeatAssigned)} == expected


async def test_a_published_event_carries_its_origin(probe: RunningService) -> None:
    await write(probe, "NASA", "one", "two")
    await eventually(lambda: _seats(probe, {"one", "two"}))
    first, second = await probe.published(SeatAssigned)
    assert first.envelope.id == "muster.entitlements.seat/NASA/1/00000000000000000001"
    assert second.envelope.sequence == 2
    assert {e.envelope.correlation_id for e in (first, second)} == {"cor_1"}
    assert first.envelope.source == "/muster/entitlements"


async def test_killed_between_acknowledgment_and_delete_the_relay_repeats_and_effects_come_once(
    idle_probe: RunningService, probe_process: ProbeStarter
) -> None:
    await write(idle_probe, "NASA", *(f"seat_{n}" for n in range(700)))
    dying = await probe_process("relay", dies_before="delete")
    async with asyncio.timeout(30):
        assert await dying.wait() == -9
    assert not await outbox_is_empty(idle_probe)

    await probe_process("relay", "consumer")
    await eventually(lambda: outbox_is_empty(idle_probe), timeout=30)
    await eventually(lambda: _effects(idle_probe, 700), timeout=30)
    sequences = [event.envelope.sequence for event in await idle_probe.published(SeatAssigned)]
    assert sequences == [*range(1, 701), *range(1, 701)]


async def test_killed_between_its_commit_and_kafkas_the_consumer_applies_nothing_twice(
    idle_probe: RunningService, probe_process: ProbeStarter
) -> None:
    await write(idle_probe, "NASA", *(f"seat_{n}" for n in range(300)))
    await probe_process("relay")
    dying = await probe_process("consumer", dies_before="kafka commit")
    async with asyncio.timeout(30):
        assert await dying.wait() == -9
    applied = await idle_probe.admin.fetchval("select count(*) from effect")
    assert applied > 0

    await write(idle_probe, "NASA", "last")
    await probe_process("consumer")
    await eventually(lambda: _effects(idle_probe, 301), timeout=60)


async def _effects(probe: RunningService, count: int) -> bool:
    rows = await probe.admin.fetch("select sequence from effect order by id")
    assert [row["sequence"] for row in rows] == list(range(1, count + 1))
    return True


async def test_two_relays_at_once_lose_nothing_and_keep_the_order(idle_probe: RunningService) -> None:
    """Both believe that they lead: the lease only saves work."""
    for number in range(60):
        await write(idle_probe, "NASA", *(f"{number}-{part}" for part in range(50)))
    async with relaying(idle_probe), relaying(idle_probe):
        await eventually(lambda: outbox_is_empty(idle_probe))
    first_seen = dict.fromkeys(e.envelope.sequence for e in await idle_probe.published(SeatAssigned))
    assert list(first_seen) == list(range(1, 3001))


async def test_relays_that_take_longer_to_begin_than_a_lease_lasts_do_not_fence_each_other_forever(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when each answer of Kafka takes 400 ms: a relay that had just begun was fenced before it sent anything."""

    async def compare_slowly(*arguments: Any) -> Collection[TopicPartition]:
        leaderless = await refuse_restored(*arguments)
        until = time.monotonic() + LEASE_SECONDS + 2 * RENEW_SECONDS
        await eventually(lambda: time.monotonic() > until, prompt=True)
        return leaderless

    monkeypatch.setattr(trust, "refuse_restored", compare_slowly)
    async with idle_probe.runtime.database.write("NASA", context=CONTEXT) as uow:
        uow.publish(PersonRecorded(agency_id="NASA", subject_ref="sub_1", name="Ada", email="ada@nasa.gov"))
    async with relaying(idle_probe, "first"), relaying(idle_probe, "second"):
        await eventually(lambda: outbox_is_empty(idle_probe), timeout=30)


async def test_a_lane_that_loses_a_cancellation_ends_with_the_next(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka's client swallows one that arrives while it closes."""
    lost: list[str] = []
    run = lane.Lane.run

    async def run_on_once(self: lane.Lane) -> None:
        with suppress(asyncio.CancelledError):
            await run(self)
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        lost.append(self._lease._duty)
        await run(self)

    monkeypatch.setattr(lane.Lane, "run", run_on_once)
    async with asyncio.timeout(20), relaying(idle_probe):
        await write(idle_probe, "NASA", "one")
    assert sorted(lost) == ["relay", "relay-compacted"]


async def test_a_read_finds_what_is_in_flight_by_hash(idle_probe: RunningService) -> None:
    """It looks through 10,000 runs; comparing each with every run in flight took four times as long as the rest."""
    types = "text[], bigint[], text[], text[], integer, integer, integer, text[], text[]"
    async with idle_probe.admin.transaction():
        await idle_probe.admin.execute("set local plan_cache_mode = force_generic_plan")
        await idle_probe.admin.execute(f"prepare read ({types}) as {lane._READ}")
        rows = await idle_probe.admin.fetch(
            "explain execute read ('{}', '{}', '{}', '{}', 500, 10000, 10000, '{}', '{}')"
        )
        await idle_probe.admin.execute("deallocate read")
    plan = "\n".join(row[0] for row in rows)
    assert "<> ALL" not in plan, plan
    assert "ANY (id = (hashed SubPlan" in plan, plan


async def test_a_relay_publishes_after_an_unreadable_record_at_a_topics_end(idle_probe: RunningService) -> None:
    await write(idle_probe, "NASA", "one")
    async with relaying(idle_probe):
        await eventually(lambda: outbox_is_empty(idle_probe))
    await put_unreadable(idle_probe, "NASA")
    await write(idle_probe, "NASA", "two")
    async with relaying(idle_probe):
        await eventually(lambda: outbox_is_empty(idle_probe))


@pytest.mark.parametrize("size", [1_000_000])
async def test_an_event_too_large_for_kafka_is_refused_when_it_is_recorded(
    idle_probe: RunningService, size: int
) -> None:
    with pytest.raises(Exception, match="at most"):
        await write(idle_probe, "NASA", "x" * size)
    assert await outbox_is_empty(idle_probe)


async def test_facts_wait_for_no_compacted_topic(idle_probe: RunningService) -> None:
    settings = idle_probe.runtime.settings
    directory = settings.topic_prefix + PersonRecorded.topic
    await delete_topics(kafka_at(settings.kafka_bootstrap), [directory])
    async with idle_probe.runtime.database.write("NASA", context=CONTEXT) as uow:
        uow.publish(PersonRecorded(agency_id="NASA", subject_ref="sub_1", name="Ada", email="ada@nasa.gov"))
        uow.publish(seat("NASA", "one"))

    async def topics_waiting() -> set[str]:
        return {row["topic"] for row in await idle_probe.admin.fetch("select topic from outbox")}

    async def facts_are_published() -> bool:
        return await topics_waiting() == {PersonRecorded.topic}

    faults = TopicFaults(missing=[directory])
    async with relaying(idle_probe, faults=lambda: faults):
        await eventually(facts_are_published)
        described = [topics()[PersonRecorded.topic]]
        await create_topics(kafka_at(settings.kafka_bootstrap), settings.topic_prefix, described, partitions=PARTITIONS)
        faults = TopicFaults()
        await eventually(lambda: outbox_is_empty(idle_probe), timeout=90)
    async with Reader(kafka_at(settings.kafka_bootstrap), settings.topic_prefix, [PersonRecorded.topic]) as reader:
        assert len(await reader.events(PersonRecorded)) == 1


async def test_the_outbox_is_vacuumed_under_a_load_that_never_pauses(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "READ_RUNS", 1)
    monkeypatch.setattr(relay_, "VACUUM_AFTER_EVENTS", 5)
    for number in range(400):
        await write(idle_probe, "NASA", f"seat_{number}")

    async def vacuumed() -> int:
        vacuumed: int = await idle_probe.admin.fetchval(
            "select vacuum_count from pg_stat_user_tables where relid = 'outbox'::regclass"
        )
        return vacuumed

    async with relaying(idle_probe):
        await eventually(vacuumed)
        assert not await outbox_is_empty(idle_probe)

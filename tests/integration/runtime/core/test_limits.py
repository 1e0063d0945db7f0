"""What is limited, and what happens at the limit: full streams, the breaker, a stuck client, a full outbox."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from muster_contracts import write_headers
from muster_contracts.entitlements import SeatAssigned
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.messaging import replay
from muster_runtime.messaging.consumer import ConsumerStuck, progress
from muster_runtime.messaging.events import EventHandler, Received
from muster_runtime.messaging.producers import partition_of
from muster_runtime.process.roles import Role
from muster_runtime.process.running import Process, running
from muster_runtime.settings import Settings
from tests.integration.runtime.core.conftest import discard
from tests.integration.runtime.core.looks import has_parked, not_ready, parked_streams, ready, seat, seats
from tests.integration.runtime.core.probe.service import build
from tests.integration.runtime.core.streams import at
from tests.integration.runtime.http import sample
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.services import PARTITIONS, RunningService, ServiceRunner

TOPIC = "muster.entitlements.seat"
AGENCIES = ("NASA", "DOE", "EPA", "DOL", "HHS", "USDA", "VA", "DOT")


def elsewhere(agency_id: str) -> str:
    """An agency whose events are in another partition."""
    home = partition_of(agency_id.encode(), PARTITIONS)
    return next(other for other in AGENCIES if partition_of(other.encode(), PARTITIONS) != home)


async def test_a_full_stream_pauses_its_partition_until_there_is_room(run_service: ServiceRunner) -> None:
    probe = await run_service(
        build,
        Settings,
        roles=frozenset({Role.CONSUMER}),  # the relay would find its topic ahead of its database
        parked_records=3,
        consumer_batch_records=1,
        consumer_stuck_seconds=3,
        postgres_pool_size=5,
    )
    await probe.publish(seat("NASA", "poison"), *(seat("NASA", f"{n}") for n in range(5)))
    await eventually(lambda: not_ready(probe, "the parked stream of NASA on muster.entitlements.seat is full"))
    assert await parked_streams(probe) == {("NASA", 3)}
    consumer = probe.process.consumer
    assert consumer is not None
    assert [p.partition for p in consumer._client().paused()] == [partition_of(b"NASA", PARTITIONS)]

    other = elsewhere("NASA")
    await probe.publish(seat(other, "a"), seat(other, "b"))
    await eventually(lambda: seats(probe, other, 2))

    await discard(probe, "NASA")
    await probe.client.post(f"/v1/parked/{TOPIC}/NASA/replay")
    await eventually(lambda: seats(probe, "NASA", 5))
    await eventually(lambda: ready(probe))
    assert await parked_streams(probe) == set()


async def test_the_breaker_stops_a_consumer_that_parks_too_many_streams(run_service: ServiceRunner) -> None:
    probe = await run_service(build, Settings, parked_streams=2, consumer_batch_records=1)
    for agency_id in ("NASA", "DOE"):
        await probe.publish(seat(agency_id, "poison"))
    await eventually(lambda: parked_streams(probe))
    await probe.publish(seat("EPA", "poison"), seat("EPA", "after"))
    await eventually(lambda: not_ready(probe, "the breaker is open: 2 streams have parked within 10 minutes"))
    assert {agency_id for agency_id, _ in await parked_streams(probe)} == {"NASA", "DOE"}

    await discard(probe, "NASA")
    await eventually(lambda: has_parked(probe, {"DOE", "EPA"}))
    await eventually(lambda: ready(probe))


async def test_worthless_records_do_not_open_the_breaker(run_service: ServiceRunner) -> None:
    """Gaps, values of a wrong shape, numbers out of range: whoever writes them stops no other agency."""
    probe = await run_service(build, Settings, parked_streams=1)
    (first,) = await probe.publish(seat("NASA", "a"))
    await probe.producer.put(first._replace(agency_id="DOE", sequence=7, id="gap"), seat("DOE", "gap"))
    for agency_id in ("EPA", "DOL", "HHS"):
        headers = write_headers(first._replace(agency_id=agency_id, id=agency_id))
        await probe.producer.put_raw(TOPIC, key=agency_id.encode(), value=b"{}", headers=headers)
    await probe.producer.put(first._replace(agency_id="VA", id="VA"), seat("VA", "\0"))
    await probe.producer.put_raw(TOPIC, key=b"no agency", value=b"", headers=[])
    await eventually(lambda: has_parked(probe, {"DOE", "EPA", "DOL", "HHS", "VA", "?"}))
    await probe.publish(seat("NASA", "b"))
    await eventually(lambda: seats(probe, "NASA", 2))
    await eventually(lambda: ready(probe))


@asynccontextmanager
async def second_process(probe: RunningService, **changes: Any) -> AsyncIterator[Process]:
    """A process of the probe that may fail, beside one that only serves HTTP."""
    settings = probe.runtime.settings.model_copy(update={"instance": "second", **changes})
    async with running(build(settings)) as process:
        yield process


async def test_a_consumer_that_is_behind_and_does_nothing_ends_its_process(idle_probe: RunningService) -> None:
    async with second_process(idle_probe, consumer_stuck_seconds=1.5) as process:
        consumer = process.consumer
        assert consumer is not None
        await consumer.assigned.wait()
        consumer._client().pause(*consumer._client().assignment())  # like a client that no longer fetches
        await idle_probe.publish(seat("NASA", "a"))
        with pytest.raises(ConsumerStuck, match=r"1 records behind and has been stuck for \d+ s"):
            await asyncio.wait_for(asyncio.shield(process.failed), 30)


@asynccontextmanager
async def handling(probe: RunningService, handle: EventHandler) -> AsyncIterator[Process]:
    """A process beside the probe with another handler, whose consumer is soon taken for stuck."""
    settings = probe.runtime.settings.model_copy(update={"instance": "second", "consumer_stuck_seconds": 0.5})
    async with running(replace(build(settings), subscriptions={SeatAssigned: handle})) as process:
        yield process


async def test_a_handler_that_does_not_return_ends_its_process(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that waits for something outside of Postgres."""
    monkeypatch.setattr(progress, "HUNG_SECONDS", 2.0)

    async def hang(_uow: UnitOfWork, _events: Sequence[Received[SeatAssigned]]) -> None:
        await asyncio.Event().wait()

    async with handling(idle_probe, hang) as process:
        await idle_probe.publish(seat("NASA", "a"))
        with pytest.raises(ConsumerStuck, match=r"applied one batch for \d+ s, and no handler returns"):
            await asyncio.wait_for(asyncio.shield(process.failed), 30)


async def test_a_long_replay_is_not_taken_for_a_handler_that_hangs(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "HUNG_SECONDS", 2.0)
    monkeypatch.setattr(replay, "REPLAY_RECORDS", 1)
    handled = 0

    async def take_long(_uow: UnitOfWork, events: Sequence[Received[SeatAssigned]]) -> None:
        nonlocal handled
        await asyncio.sleep(0.5)
        handled += len(events)

    async with handling(idle_probe, take_long) as process:
        (first,) = await idle_probe.publish(seat("NASA", "a"))
        for sequence in range(3, 11):
            await idle_probe.producer.put(at(first, sequence), seat("NASA", "a"))
        await eventually(lambda: has_parked(idle_probe, {"NASA"}))
        await idle_probe.producer.put(at(first, 2), seat("NASA", "a"))
        await eventually(lambda: handled == 10 or process.failed.done())
        assert not process.failed.done()


async def test_a_full_outbox_refuses_commands_until_events_are_published(run_service: ServiceRunner) -> None:
    """As during a long outage of Kafka. Events from consumers and deadlines are still accepted."""
    api = await run_service(sample.build, Settings, roles=frozenset({Role.API}), outbox_rows=2)
    for _ in range(2):
        async with api.runtime.database.write("NASA", context=CONTEXT) as uow:
            uow.publish(seat("NASA", "a"))
    await api.client.get("/health/ready")
    refused = await api.client.post("/v1/agencies/NASA/notes", json={"text": "too many"})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert "too many events are waiting to be published" in refused.json()["detail"]

    await api.admin.execute("delete from outbox")  # as a relay would
    await api.client.get("/health/ready")
    assert (await api.client.post("/v1/agencies/NASA/notes", json={"text": "again"})).status_code == 201


async def test_a_quiet_consumer_is_not_taken_for_a_stuck_one(idle_probe: RunningService) -> None:
    async with second_process(idle_probe, consumer_stuck_seconds=0.3) as process:
        done, _ = await asyncio.wait([process.failed], timeout=3)
        assert not done


async def test_a_client_whose_coordination_has_ended_ends_the_process(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It no longer reads anything, and no other client takes its place in this process."""
    async with second_process(idle_probe) as process:
        consumer = process.consumer
        assert consumer is not None
        await eventually(consumer.assigned.is_set)
        coordinator: Any = consumer._client()._coordinator

        async def fail(*_: Any) -> None:
            raise AttributeError("no such thing in this client")

        monkeypatch.setattr(coordinator, "ensure_active_group", fail)
        coordinator.request_rejoin()
        await eventually(process.failed.done)


async def test_a_commit_that_kafka_does_not_answer_delays_no_later_event(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with second_process(idle_probe) as process:
        consumer = process.consumer
        assert consumer is not None
        await eventually(consumer.assigned.is_set)

        async def hang(*_: Any) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(consumer._client(), "commit", hang)
        await idle_probe.publish(seat("NASA", "a"))
        await eventually(lambda: seats(idle_probe, "NASA", 1))
        await idle_probe.publish(seat("NASA", "b"))
        await eventually(lambda: seats(idle_probe, "NASA", 2))

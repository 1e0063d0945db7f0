"""A cancellation ends whatever Kafka's client is doing: it is not swallowed, and leaves neither a task nor a socket."""

import asyncio
import inspect
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from muster_contracts.entitlements import SeatAssigned
from muster_local.servers import kafka_at
from muster_runtime.messaging import client_closing, lane, topic_log
from muster_runtime.messaging.topic_log import TopicLog
from tests.integration.runtime.core.relays import outbox_is_empty, relaying, write
from tests.support.eventually import eventually
from tests.support.services import RunningService

# About how many turns of the event loop a client takes to close.
TURNS = 12


def tasks_of(consumer: Any) -> set[str]:
    """The tasks that a client runs in the background."""
    parts = (consumer._fetcher, consumer._coordinator, consumer._client)
    coroutines = [task.get_coro() for task in asyncio.all_tasks()]
    frames = [(each.__qualname__, each.cr_frame) for each in coroutines if inspect.iscoroutine(each)]
    return {name for name, frame in frames if frame is not None and frame.f_locals.get("self") in parts}


def connections_of(consumer: Any) -> int:
    return sum(connection.connected() for connection in consumer._client._conns.values())


class Closings:
    """Notes when a topic's client begins to close."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clients: list[AIOKafkaConsumer] = []
        self._begun = asyncio.Event()
        close = client_closing.close_consumer

        async def noted(consumer: AIOKafkaConsumer) -> None:
            self.clients.append(consumer)
            self._begun.set()
            await close(consumer)

        monkeypatch.setattr(topic_log, "close_consumer", noted)

    async def next(self, turns: int) -> None:
        """Wait until the next closing begins, and then for this many turns."""
        self._begun.clear()
        await asyncio.wait_for(self._begun.wait(), 30)
        for _ in range(turns):
            await asyncio.sleep(0)


async def test_a_cancellation_while_a_client_closes_is_kept_and_leaves_nothing(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(idle_probe, "NASA", *(f"seat_{number}" for number in range(50)))
    async with relaying(idle_probe):
        await eventually(lambda: outbox_is_empty(idle_probe))
    kafka = kafka_at(idle_probe.runtime.settings.kafka_bootstrap)

    async def read() -> None:
        async with TopicLog.open(kafka, idle_probe.topic_prefix, [SeatAssigned.topic]) as log:
            async for _ in log.batches():
                pass

    closings, swallowed = Closings(monkeypatch), []
    for turns in range(TURNS):
        task = asyncio.create_task(read())
        await closings.next(turns)
        if not task.cancel():
            break  # it was closed by then
        await asyncio.wait([task], timeout=5)
        if not task.cancelled():
            swallowed.append(turns)
        assert tasks_of(closings.clients[-1]) == set()
        assert connections_of(closings.clients[-1]) == 0
    assert turns > 1
    assert swallowed == []


async def test_a_relay_sends_nothing_more_once_it_is_canceled(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a backlog, while it compares a topic with its database."""
    monkeypatch.setattr(lane, "READ_RUNS", 1)
    for number in range(300):
        await write(idle_probe, "NASA", f"seat_{number}")
    closings = Closings(monkeypatch)
    for turns in range(8):
        async with relaying(idle_probe) as relay:
            await closings.next(turns)
        assert relay.relayed == 0


async def test_a_client_closes_even_while_its_partitions_are_assigned(idle_probe: RunningService) -> None:
    """At that moment its fetches swallow the first cancellation."""
    topic = idle_probe.topic_prefix + SeatAssigned.topic
    kafka = kafka_at(idle_probe.runtime.settings.kafka_bootstrap)
    for turns in range(4):
        consumer = AIOKafkaConsumer(topic, **kafka.options(), enable_auto_commit=False, fetch_min_bytes=256 * 1024)
        await consumer.start()
        for partition in consumer.assignment():
            consumer.seek(partition, 0)
        await consumer.getmany(timeout_ms=50)
        closing = asyncio.create_task(client_closing.close_consumer(consumer))
        for _ in range(turns):
            await asyncio.sleep(0)
        consumer._subscription.assign_from_subscribed({TopicPartition(topic, 0)})  # as when a partition is added
        await asyncio.wait_for(closing, 5)
        assert tasks_of(consumer) == set()

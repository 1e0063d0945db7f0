"""From a command's answer to its effect in another service: real processes, one event at a time."""

import asyncio
import time
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from muster_contracts import topics
from muster_contracts.entitlements import SeatAssigned
from muster_runtime.clock import SystemClock
from muster_runtime.context import Context
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.database.wakeup import WakeupListener
from muster_runtime.messaging.applier import Applier
from muster_runtime.messaging.consumer import Consumer
from muster_runtime.messaging.events import Received
from muster_runtime.messaging.subscriptions import Subscriptions
from tests.bench.processes import span
from tests.bench.report import Measurement
from tests.bench.setting import SEAT_TOPIC, Setting, setting
from tests.support.limits import LIMITS


async def measure(events: int, per_second: float) -> list[Measurement]:
    """Write single events at a steady rate and time each until its effect is committed."""
    async with setting() as own:
        limits = await _round_trips(own, min(events, 200))
        with span() as ours:
            delays = await _delays(own, events, per_second)
    name = f"command to effect at {per_second:g}/s"
    return [
        Measurement(f"{name}, p50", percentile(delays, 50), percentile(limits, 50), "ms", "under 6 ms", ours.cpu),
        Measurement(f"{name}, p99", percentile(delays, 99), percentile(limits, 99), "ms", "under 20 ms"),
    ]


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which this percentage of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


async def _delays(own: Setting, events: int, per_second: float) -> list[float]:
    arrived: dict[str, asyncio.Future[float]] = {}

    async def take(_uow: UnitOfWork, run: Sequence[Received[SeatAssigned]]) -> None:
        for event in run:
            arrived[event.data.seat_id].set_result(time.perf_counter())

    clock = SystemClock()
    listener = WakeupListener(own.access.worker_dsn, "entitlements", clock)
    relay = own.relay(listener.wakeup)
    group = own.topic_prefix + "bench"
    subscriptions = Subscriptions({SeatAssigned: take}, service="bench", group=group, clock=own.database.clock)
    consumer = Consumer(
        Applier(own.database, subscriptions, LIMITS),
        own.database,
        {SEAT_TOPIC: topics()[SEAT_TOPIC].partitions},
        client_id="bench",
        kafka=own.kafka,
        topic_prefix=own.topic_prefix,
        batch_records=1_000,
        stuck_seconds=60,
    )
    tasks = [asyncio.create_task(listener.run()), asyncio.create_task(relay.run())]
    await consumer.start()
    await consumer.assigned.wait()
    delays = []
    start = time.perf_counter()
    warm_up = 20
    for number in range(events + warm_up):
        await asyncio.sleep(max(0.0, start + number / per_second - time.perf_counter()))
        seat_id = f"seat_{number}"
        arrived[seat_id] = asyncio.get_running_loop().create_future()
        async with own.database.write("NASA", context=Context("bench", "cor_0")) as uow:
            uow.publish(SeatAssigned(agency_id="NASA", seat_id=seat_id, subject_ref="sub_0"))
        answered = time.perf_counter()
        effect = await arrived[seat_id]
        if number >= warm_up:
            delays.append((effect - answered) * 1000)
    await consumer.stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return delays


async def _round_trips(own: Setting, count: int) -> list[float]:
    """Kafka alone: a record sent and polled back, in milliseconds."""
    topic = own.topic_prefix + SEAT_TOPIC
    producer = AIOKafkaProducer(**own.kafka.options(), acks="all", enable_idempotence=True)
    consumer = AIOKafkaConsumer(topic, **own.kafka.options(), auto_offset_reset="latest")
    await producer.start()
    await consumer.start()
    await consumer.seek_to_end()
    delays = []
    for number in range(count):
        sent = time.perf_counter()
        await producer.send(topic, key=b"x", value=str(number).encode())
        await consumer.getone()
        delays.append((time.perf_counter() - sent) * 1000)
    await consumer.stop()
    await producer.stop()
    return delays

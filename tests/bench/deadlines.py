"""Deadlines all due at one instant, each publishing an event, compared with a set-based update of as many rows."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import asyncpg
from aiokafka import AIOKafkaConsumer

from muster_contracts.entitlements import SeatAssigned
from muster_runtime.clock import SystemClock
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.database.wakeup import WakeupListener
from muster_runtime.scheduling.deadlines import Deadline, DeadlineHandler
from muster_runtime.scheduling.news import Ends, News
from muster_runtime.scheduling.scheduler import Scheduler
from tests.bench.processes import span
from tests.bench.report import Measurement
from tests.bench.setting import AGENCIES, SEAT_TOPIC, Setting, setting
from tests.support.limits import LIMITS

KIND = "bench"

# Time until the instant, so that everything is in place when it comes.
AHEAD = timedelta(seconds=10)


async def measure(deadlines: int) -> list[Measurement]:
    """The time from when this many deadlines of 44 agencies are due until Kafka acknowledges their events."""
    clock = SystemClock()
    async with setting() as own:
        await _fill(own, deadlines, clock.now() + timedelta(days=1))
        due_at = (clock.now() + AHEAD).replace(microsecond=0)
        limit = await _move(own, due_at)
        with span() as ours:
            first, last = await publications(own, SEAT_TOPIC, {KIND: publish}, deadlines, due_at)
        earliest = await _earliest(own, deadlines)
    return [
        Measurement("due to the first publication", first, None, "s", "under 1 s"),
        Measurement(
            f"due to the last of {deadlines:,} publications",
            last,
            limit,
            "s",
            "under 5 s",
            ours.cpu,
            peak_mebibytes=ours.peak_mebibytes,
        ),
        Measurement("due to the earliest record's time", earliest - due_at.timestamp(), None, "s", "not below 0"),
    ]


async def _fill(own: Setting, deadlines: int, due_at: datetime) -> None:
    connection = await asyncpg.connect(own.access.admin_dsn, server_settings={"search_path": "entitlements"})
    await connection.execute(
        """
        insert into deadline (kind, agency_id, subject, due_at)
        select $1, ($2::text[])[n % cardinality($2::text[]) + 1], 'seat_' || n, $3
        from generate_series(0, $4::int - 1) as s(n)
        """,
        KIND,
        AGENCIES,
        due_at,
        deadlines,
    )
    await connection.execute("vacuum analyze deadline")
    await connection.close()


async def _move(own: Setting, due_at: datetime) -> float:
    """Set the instant; return the seconds of a set-based update of all these rows."""
    connection = await asyncpg.connect(own.access.admin_dsn, server_settings={"search_path": "entitlements"})
    with span() as update:
        await connection.execute("update deadline set due_at = $1", due_at)
    await connection.close()
    return update.wall


async def publish(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Publish an event for each deadline, at its instant."""
    for deadline in due:
        event = SeatAssigned(agency_id=deadline.agency_id, seat_id=deadline.subject, subject_ref="sub_0")
        uow.publish(event, time=deadline.due_at)


async def publications(
    own: Setting, topic: str, handlers: Mapping[str, DeadlineHandler], events: int, due_at: datetime
) -> tuple[float, float]:
    """Seconds from the instant until Kafka has the first event, and the last."""
    clock = SystemClock()
    listener = WakeupListener(own.access.worker_dsn, "entitlements", clock)
    news = News(own.database, clock, "entitlements", Ends(clock, own.kafka, own.topic_prefix, {}))
    scheduler = Scheduler(own.database, listener.wakeup(), clock, handlers, "entitlements", news, LIMITS.streams)
    relay = own.relay(listener.wakeup, topic)
    duties = [asyncio.create_task(duty) for duty in (listener.run(), scheduler.run(), relay.run())]
    first = 0.0
    async with _reader(own, topic) as consumer:
        while (published := await _published(consumer)) < events:
            if published and not first:
                first = (clock.now() - due_at).total_seconds()
            await asyncio.sleep(0.005)
    last = (clock.now() - due_at).total_seconds()
    for duty in duties:
        duty.cancel()
    await asyncio.gather(*duties, return_exceptions=True)
    return first or last, last


@asynccontextmanager
async def _reader(own: Setting, topic: str = SEAT_TOPIC) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of the whole topic from its beginning; without a group, it has every partition."""
    consumer = AIOKafkaConsumer(own.topic_prefix + topic, **own.kafka.options(), auto_offset_reset="earliest")
    await consumer.start()
    yield consumer
    await consumer.stop()


async def _published(consumer: AIOKafkaConsumer) -> int:
    return sum((await consumer.end_offsets(list(consumer.assignment()))).values())


async def _earliest(own: Setting, deadlines: int) -> float:
    """The earliest time in a record: when the relay put it into a batch, in seconds since 1970."""
    earliest, seen = float("inf"), 0
    async with _reader(own) as consumer:
        while seen < deadlines:
            batches = await consumer.getmany(timeout_ms=1000)
            for batch in batches.values():
                earliest = min([earliest, *(record.timestamp / 1000 for record in batch)])
                seen += len(batch)
    return earliest

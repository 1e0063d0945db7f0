"""Consuming and applying, one row per event, with its limits: getmany, validate_json, and one statement per batch.

One limit reads no headers; the other reads those that any consumer needs to apply each event once.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
from aiokafka import AIOKafkaConsumer
from pydantic import TypeAdapter

from muster_contracts import topics
from muster_contracts.entitlements import SeatAssigned
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.messaging.applier import Applier
from muster_runtime.messaging.consumer import POLL_MS, Consumer
from muster_runtime.messaging.events import Received
from muster_runtime.messaging.subscriptions import Subscriptions
from muster_runtime.process.running import collect_garbage_rarely
from tests.bench.processes import Span, span
from tests.bench.relay import drain, fill
from tests.bench.report import Measurement
from tests.bench.setting import SEAT_TOPIC, Setting, setting
from tests.support.limits import LIMITS

BATCH_RECORDS = 1_000

_INSERT = """
insert into effect (agency_id, seat_id, subject_ref)
select * from unnest($1::text[], $2::text[], $3::text[])
"""


async def measure(events: int) -> list[Measurement]:
    """Consume this many events of a topic into one row each, measured from the assignment on."""
    async with setting() as own:
        await make_table(own)
        await fill(own, events)
        await drain(own, events)
        collect_garbage_rarely()
        limit = await bare(own, events)
        reading = await bare(own, events, reads_headers=True)
        ours = await consume(own, events)
        gc.unfreeze()
    return [
        Measurement(
            name,
            events / ours.wall,
            events / beside.wall,
            "events/s",
            aim,
            ours.cpu,
            beside.cpu,
            ours.peak_mebibytes,
        )
        for name, beside, aim in (
            ("consume and apply", limit, ""),
            ("consume and apply, beside a limit that reads headers", reading, "0.8 of it"),
        )
    ]


async def make_table(own: Setting) -> None:
    """Create a table for one row per event."""
    connection = await asyncpg.connect(own.access.owner_dsn, server_settings={"search_path": "entitlements"})
    await connection.execute("create table effect (agency_id text, seat_id text, subject_ref text)")
    await connection.execute("select protect('effect', api => '', worker => 'select, insert')")
    await connection.close()


@dataclass
class Counter:
    """Keeps a row for each event, and counts them."""

    seen: int = 0

    async def keep(self, uow: UnitOfWork, run: Sequence[Received[SeatAssigned]]) -> None:
        await uow.connection.execute(
            _INSERT,
            [event.data.agency_id for event in run],
            [event.data.seat_id for event in run],
            [event.data.subject_ref for event in run],
        )
        self.seen += len(run)


@asynccontextmanager
async def counting(own: Setting) -> AsyncIterator[Counter]:
    """A consumer that stores one row per event of the topic, with its partitions assigned."""
    counter = Counter()
    group = own.topic_prefix + "bench"
    subscriptions = Subscriptions({SeatAssigned: counter.keep}, service="bench", group=group, clock=own.database.clock)
    consumer = Consumer(
        Applier(own.database, subscriptions, LIMITS),
        own.database,
        {SEAT_TOPIC: topics()[SEAT_TOPIC].partitions},
        client_id="bench",
        kafka=own.kafka,
        topic_prefix=own.topic_prefix,
        batch_records=BATCH_RECORDS,
        stuck_seconds=60,
    )
    await consumer.start()
    await consumer.assigned.wait()
    try:
        yield counter
    finally:
        await consumer.stop()


async def consume(own: Setting, events: int) -> Span:
    """Apply this many events of the topic with one row each. Measures from the assignment on."""
    async with counting(own) as counter:
        with span() as measured:
            while counter.seen < events:
                await asyncio.sleep(0.005)
    return measured


def _compare(batch: Sequence[Mapping[str, bytes]]) -> None:
    """Check that each event has a known type and follows its agency's last one."""
    known: dict[bytes, tuple[int, int]] = {}
    for headers in batch:
        agency_id, position = headers["ce_partitionkey"], (int(headers["ce_epoch"]), int(headers["ce_sequence"]))
        last = known.get(agency_id)
        if headers["ce_type"].decode() != SeatAssigned.event_type or (last and position[1] != last[1] + 1):
            raise AssertionError(f"an event of {agency_id!r} does not follow {last}")
        known[agency_id] = position


async def bare(own: Setting, events: int, *, reads_headers: bool = False) -> Span:
    """What every consumer must do: fetch, validate, insert, commit; with headers, compare each event's position."""
    consumer = AIOKafkaConsumer(
        own.topic_prefix + SEAT_TOPIC,
        **own.kafka.options(),
        group_id=f"{own.topic_prefix}limit-{reads_headers}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    adapter = TypeAdapter(SeatAssigned)
    connection = await asyncpg.connect(own.access.admin_dsn, server_settings={"search_path": "entitlements"})
    seen = 0
    with span() as measured:
        while seen < events:
            batches = await consumer.getmany(timeout_ms=POLL_MS, max_records=BATCH_RECORDS)
            data = [adapter.validate_json(record.value or b"") for batch in batches.values() for record in batch]
            if not data:
                continue
            if reads_headers:
                for batch in batches.values():
                    _compare([dict(record.headers) for record in batch])
            await connection.execute(
                _INSERT, [d.agency_id for d in data], [d.seat_id for d in data], [d.subject_ref for d in data]
            )
            await consumer.commit()
            seen += len(data)
    await consumer.stop()
    await connection.close()
    return measured

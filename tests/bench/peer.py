"""The relay compared with faststream-outbox, an outbox for FastStream, at its fastest settings.

These are many workers, which give up the order of events, deletes in batches, and undecoded bodies. Both
relay events of 350 bytes to the same topic, from the same Postgres.
"""

import asyncio
from typing import Any
from urllib.parse import urlsplit

from faststream.kafka import KafkaBroker
from faststream_outbox import OutboxBroker, make_outbox_table
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from muster_contracts import encode
from muster_contracts.entitlements import SeatAssigned
from tests.bench.processes import Span, span
from tests.bench.relay import SUBJECT, drain, fill
from tests.bench.report import Measurement
from tests.bench.setting import SEAT_TOPIC, Setting, setting

# The best of 5 to 100: fewer wait for Kafka, more get in each other's way.
WORKERS = 20
FETCHED = 2000
DELETED_TOGETHER = 500

QUEUE = "seats"


async def measure(peers_events: int, events: int) -> list[Measurement]:
    """Relay these numbers of events with the peer and with ours; each takes some seconds."""
    async with setting() as own:
        limit = await _peer(own, peers_events)
        await fill(own, events)
        ours, relayed = await drain(own, events)
    return [
        Measurement(
            "relay beside faststream-outbox",
            relayed / ours.wall,
            peers_events / limit.wall,
            "events/s",
            "100 times it",
            ours.cpu,
            limit.cpu * relayed / peers_events,
            ours.peak_mebibytes,
        )
    ]


async def _peer(own: Setting, events: int) -> Span:
    address = urlsplit(own.access.admin_dsn)._replace(scheme="postgresql+asyncpg", query="")
    engine = create_async_engine(address.geturl(), pool_size=2 * WORKERS)
    table = make_outbox_table(metadata := MetaData(), "peer_outbox")
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    outbox = OutboxBroker(engine, outbox_table=table, logger=None, apply_types=False, decoder=_undecoded)
    await _fill(outbox, engine, events)
    kafka = KafkaBroker(
        own.kafka.bootstrap,
        acks="all",
        enable_idempotence=True,
        compression_type="snappy",
        logger=None,
        apply_types=False,
    )
    publisher = kafka.publisher(own.topic_prefix + SEAT_TOPIC)
    published, done = 0, asyncio.Event()

    @outbox.subscriber(
        QUEUE,
        max_workers=WORKERS,
        fetch_batch_size=FETCHED,
        min_fetch_interval=0.01,
        max_fetch_interval=0.1,
        terminal_flush_batch_size=DELETED_TOGETHER,
    )
    async def relay(body: bytes) -> None:
        nonlocal published
        await publisher.publish(body)
        published += 1
        if published == events:
            done.set()

    await kafka.start()
    with span() as measured:
        await outbox.start()
        await done.wait()
    await outbox.stop()
    await kafka.stop()
    await engine.dispose()
    return measured


async def _fill(outbox: OutboxBroker, engine: AsyncEngine, events: int) -> None:
    body = encode(SeatAssigned(agency_id="NASA", seat_id=f"seat_{0:032x}", subject_ref=SUBJECT))
    for number in range(0, events, FETCHED):
        bodies = [body] * min(FETCHED, events - number)
        async with engine.begin() as connection:
            await outbox.publish_batch(*bodies, queue=QUEUE, session=connection)


async def _undecoded(message: Any) -> Any:
    return message.body

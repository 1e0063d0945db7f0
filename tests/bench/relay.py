"""The relay on a full outbox, with its limits: the same rows by COPY and send_batch, without and with headers."""

import asyncio
from collections import defaultdict
from typing import Any

import asyncpg
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from muster_contracts.entitlements import SeatAssigned
from muster_contracts.envelope import Headers
from muster_contracts.testing import build, record
from muster_runtime.clock import SystemClock
from muster_runtime.context import Context
from muster_runtime.database.outbox import RUN_LENGTH
from muster_runtime.database.wakeup import Wakeup
from muster_runtime.messaging.producers import partition_of
from tests.bench.processes import Span, span
from tests.bench.report import Measurement
from tests.bench.setting import AGENCIES, SEAT_TOPIC, Setting, setting

# With this and its field names, an event's data is 350 bytes long.
SUBJECT = "sub_" + "0" * 232

# As long as the relay's, made once; under other names, since the relay would take them for lost commits.
HEADERS = [(name.replace("ce_", "xx_"), value) for name, value in record(build(SeatAssigned)).headers]


async def measure(events: int) -> list[Measurement]:
    """Relay a full outbox of this many events of 350 bytes, from 44 agencies."""
    async with setting() as own:
        await fill(own, events)
        bare = await copy_and_send(own, [])
        with_headers = await copy_and_send(own, HEADERS)
        ours, relayed = await drain(own, events)
    return [
        Measurement(
            name,
            relayed / ours.wall,
            events / limit.wall,
            "events/s",
            aim,
            ours.cpu * events / relayed,
            limit.cpu,
            ours.peak_mebibytes,
        )
        for name, limit, aim in (
            ("relay", bare, ""),
            ("relay, beside a limit with the same headers", with_headers, "0.8 of it"),
        )
    ]


async def fill(own: Setting, events: int, subject: str = SUBJECT) -> None:
    """Fill the outbox with full-length runs, the agencies in turn."""
    context = Context(actor="bench", correlation_id="cor_0")
    for number in range(0, events, RUN_LENGTH):
        agency = AGENCIES[(number // RUN_LENGTH) % len(AGENCIES)]
        async with own.database.write(agency, context=context) as uow:
            for part in range(number, min(number + RUN_LENGTH, events)):
                uow.publish(SeatAssigned(agency_id=agency, seat_id=f"seat_{part:032x}", subject_ref=subject))


async def drain(own: Setting, events: int) -> tuple[Span, int]:
    """Let the relay publish this many events from the outbox.

    Measures those after the first batch, without the start, and returns their number.
    """
    relay = own.relay(lambda: Wakeup(SystemClock()))
    task = asyncio.create_task(relay.run())
    while not relay.relayed:
        await asyncio.sleep(0.001)
    with span() as measured:
        first = relay.relayed
        while relay.relayed < events:
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return measured, events - first


async def copy_and_send(own: Setting, headers: Headers) -> Span:
    """What every relay must do; the outbox stays full. Every event gets the same headers."""
    connection = await asyncpg.connect(own.access.worker_dsn, server_settings={"search_path": "entitlements"})
    producer = AIOKafkaProducer(
        **own.kafka.options(),
        acks="all",
        enable_idempotence=True,
        compression_type="snappy",
        max_batch_size=1_000_000,
    )
    await producer.start()
    with span() as measured:
        await _copy_and_send(connection, producer, own.topic_prefix + SEAT_TOPIC, headers)
    await connection.close()
    await producer.stop()
    return measured


async def _copy_and_send(
    connection: "asyncpg.Connection[Any]", producer: AIOKafkaProducer, topic: str, headers: Headers
) -> None:
    copied: list[bytes] = []

    async def keep(chunk: bytes) -> None:
        copied.append(chunk)

    await connection.copy_from_query("select * from outbox", output=keep, format="binary")
    runs = await connection.fetch("select agency_id, payloads from outbox order by id")
    partitions = len(await producer.partitions_for(topic))
    chains: dict[int, list[BatchBuilder]] = defaultdict(list)
    for run in runs:
        key = run["agency_id"].encode()
        chain = chains[partition_of(key, partitions)]
        for payload in run["payloads"]:
            if not chain or chain[-1].append(key=key, value=payload, timestamp=None, headers=headers) is None:
                chain.append(producer.create_batch())
                chain[-1].append(key=key, value=payload, timestamp=None, headers=headers)

    async def send(partition: int, chain: list[BatchBuilder]) -> None:
        for builder in chain:
            builder.close()
            await (await producer.send_batch(builder, topic, partition=partition))

    await asyncio.gather(*(send(partition, chain) for partition, chain in chains.items()))

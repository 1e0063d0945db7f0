"""Large or highly compressed usage records: whoever may report use cannot use up a worker's memory."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from muster_contracts import ClockMoved
from muster_contracts.entitlements import FeatureUsed
from tests.integration.entitlements.conftest import Entitlements, ProcessStarter
from tests.integration.entitlements.test_usage import LATER, used
from tests.integration.entitlements.test_usage_intake import STRUCTURED, counts
from tests.support.eventually import eventually

MIB = 1024 * 1024


def peak_memory(pid: int) -> int:
    """The most memory that a process has had, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found.group(1)) // 1024


@asynccontextmanager
async def producing(front: Entitlements, compression: str) -> AsyncIterator[Callable[..., Awaitable[int]]]:
    """`put(partition, *values)`: a batch of records with these values; returns the offset of the first."""
    kafka = AIOKafkaProducer(
        bootstrap_servers=front.service.runtime.settings.kafka_bootstrap,
        compression_type=compression,
        max_batch_size=512 * MIB,
        max_request_size=512 * MIB,
    )

    async def put(partition: int, *values: bytes) -> int:
        batch = kafka.create_batch()
        for value in values:
            assert batch.append(key=None, value=value, timestamp=None, headers=STRUCTURED) is not None
        sent = await kafka.send_batch(batch, front.service.topic_prefix + FeatureUsed.topic, partition=partition)
        return int((await sent).offset)

    await kafka.start()
    try:
        yield put
    finally:
        await kafka.stop()


def events(*numbers: int) -> Sequence[bytes]:
    return [json.dumps(used(number)).encode() for number in numbers]


@pytest.fixture
async def worker(front: Entitlements, start_process: ProcessStarter) -> int:
    """The process ID of a worker."""
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    moved = ClockMoved(now=LATER).model_dump_json().encode()
    await front.service.producer.put_raw(ClockMoved.topic, key=None, value=moved, headers=[])
    process = await start_process("worker")
    return process.pid


@pytest.mark.parametrize("compression", ["zstd", "gzip", "lz4", "snappy"])
async def test_a_batch_that_is_too_large_waits_alone_until_an_operator_passes_it(
    front: Entitlements, worker: int, compression: str
) -> None:
    async with producing(front, compression) as put:
        await put(0, *events(1))
        await eventually(partial(counts, front, 1), timeout=60)
        before = peak_memory(worker)
        too_large = 17 if compression == "snappy" else 200  # the batch must fit the broker's limit
        offset = await put(0, bytes(too_large * MIB))
        await put(0, *events(2))
        await put(1, *events(3))
        await eventually(partial(counts, front, 2), timeout=60)
        path = f"/v1/partitions/{FeatureUsed.topic}/0/pass"
        passed = await front.service.client.post(path, json={"offset": offset, "reason": "too large"})
        assert passed.status_code == 200, passed.text
        await eventually(partial(counts, front, 3), timeout=60)
    assert peak_memory(worker) < before + 100


async def test_many_large_records_are_parked_without_their_content(front: Entitlements, worker: int) -> None:
    async with producing(front, "zstd") as put:
        await put(0, *events(1))
        await eventually(partial(counts, front, 1), timeout=60)
        before = peak_memory(worker)
        for _ in range(40):
            await put(0, bytes(12 * MIB))
        await put(0, *events(2))
        await eventually(partial(counts, front, 2), timeout=60)
    rows = await front.service.admin.fetch("select length(value) as length, reason from usage_parked")
    assert [tuple(row) for row in rows] == [(1024, "record must have at most 65536 bytes")] * 40
    assert peak_memory(worker) < before + 150

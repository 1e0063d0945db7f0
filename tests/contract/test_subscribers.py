"""The example subscribers, run as they are: against a real Kafka, and killed at any moment."""

import asyncio
import json
import os
import random
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from muster_contracts import topics
from muster_contracts.entitlements import SeatActivated, SeatAssigned, SeatRevoked
from muster_contracts.testing import Record, build, record
from muster_local.topics import create_topics, delete_topics
from tests.contract.node import NODE, installed

EXAMPLES = Path(__file__).parents[2] / "contracts/subscribers"
SEATS = topics()["muster.entitlements.seat"]
AGENCIES = ("NASA", "NIH", "DOE")

Eventually = Callable[..., Awaitable[Any]]


def python(name: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, str(EXAMPLES / "python" / name)]


def javascript() -> list[str]:
    return [str(NODE), str(installed(EXAMPLES / "javascript") / "subscriber.mjs")]


PRINTERS = [
    pytest.param(python("with_aiokafka.py"), id="aiokafka"),
    pytest.param(python("with_confluent_kafka.py"), id="confluent-kafka"),
    pytest.param(python("with_faststream.py"), id="faststream"),
    pytest.param(javascript, id="javascript"),
]


class Topic:
    """The topic of seats, as its owner's relay fills it."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.name = prefix + SEATS.name
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", compression_type="snappy")

    async def start(self) -> None:
        await self._producer.start()

    async def stop(self) -> None:
        await self._producer.stop()

    async def put(self, records: Sequence[Record]) -> None:
        for item in records:
            await self._producer.send(self.name, value=item.value, key=item.key, headers=item.headers)
        await self._producer.flush()


@pytest.fixture
async def topic(kafka_bootstrap: str, topic_prefix: str) -> AsyncIterator[Topic]:
    await create_topics(kafka_bootstrap, topic_prefix, [SEATS], partitions=2)
    filled = Topic(kafka_bootstrap, topic_prefix)
    await filled.start()
    yield filled
    await filled.stop()
    await delete_topics(kafka_bootstrap, [filled.name])


class Subscriber:
    """A running example, and what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.facts: list[dict[str, Any]] = []
        self.complaints = ""

    async def read(self) -> None:
        assert self.process.stdout
        async for line in self.process.stdout:
            self.facts.append(json.loads(line))

    async def read_complaints(self) -> None:
        assert self.process.stderr
        async for line in self.process.stderr:
            self.complaints += line.decode()

    def sequences(self, agency_id: str) -> list[int]:
        """The sequences of an agency's facts, in the order in which they were printed."""
        return [int(fact["id"].rsplit("/", 1)[1]) for fact in self.facts if fact["data"]["agency_id"] == agency_id]


@pytest.fixture
def run(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> Callable[..., Any]:
    @asynccontextmanager
    async def running(command: list[str], **environment: str) -> AsyncIterator[Subscriber]:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={
                **os.environ,
                "MUSTER_KAFKA_BOOTSTRAP": kafka_bootstrap,
                "MUSTER_TOPIC_PREFIX": topic_prefix,
                "GROUP": topic_prefix + "example",
                "STATE": str(tmp_path / "positions.json"),
                **environment,
            },
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        subscriber = Subscriber(process)
        readers = [asyncio.create_task(subscriber.read()), asyncio.create_task(subscriber.read_complaints())]
        try:
            yield subscriber
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            await process.wait()
            await asyncio.gather(*readers)

    return running


def seats(agency_id: str, numbers: range) -> list[Record]:
    """The records of an agency's stream from one sequence to another."""
    kinds = (SeatAssigned, SeatActivated, SeatRevoked)
    return [record(build(kinds[number % 3], agency_id=agency_id), sequence=number) for number in numbers]


def interleaved(numbers: range) -> list[Record]:
    """The same stretch of every agency's stream, one after the other at each step."""
    return [item for step in zip(*(seats(agency, numbers) for agency in AGENCIES), strict=True) for item in step]


@pytest.mark.parametrize("command", PRINTERS)
async def test_each_fact_is_printed_once_in_order_also_over_a_restart(
    command: Callable[[], list[str]], topic: Topic, run: Callable[..., Any], eventually: Eventually
) -> None:
    first = interleaved(range(1, 21))
    await topic.put(first)
    # What a relay that died after the acknowledgement does: the same again.
    await topic.put(first[-12:])

    async with run(command()) as subscriber:
        await eventually(lambda: len(subscriber.facts) >= 60, timeout=40)
        await topic.put(interleaved(range(21, 31)))
        await eventually(lambda: len(subscriber.facts) >= 90)
    for agency in AGENCIES:
        assert subscriber.sequences(agency) == list(range(1, 31)), subscriber.complaints
    assert {fact["type"] for fact in subscriber.facts} == {
        "muster.entitlements.SeatAssigned.v1",
        "muster.entitlements.SeatActivated.v1",
        "muster.entitlements.SeatRevoked.v1",
    }

    await topic.put(interleaved(range(26, 41)))
    async with run(command()) as restarted:
        await eventually(lambda: len(restarted.facts) >= 30, timeout=40)
    for agency in AGENCIES:
        assert restarted.sequences(agency) == list(range(31, 41)), restarted.complaints


@pytest.mark.parametrize("command", PRINTERS)
async def test_a_gap_stops_the_subscriber_and_is_named(
    command: Callable[[], list[str]], topic: Topic, run: Callable[..., Any]
) -> None:
    await topic.put([*seats("NASA", range(1, 4)), *seats("NASA", range(6, 8))])
    async with run(command()) as subscriber, asyncio.timeout(40):
        await subscriber.process.wait()
    assert subscriber.process.returncode != 0
    assert "NASA: events 4 to 5 are missing" in subscriber.complaints
    assert subscriber.sequences("NASA") == [1, 2, 3]


@pytest.mark.parametrize("command", PRINTERS)
async def test_a_gap_at_a_new_epoch_stops_the_subscriber_as_well(
    command: Callable[[], list[str]], topic: Topic, run: Callable[..., Any]
) -> None:
    """A restored producer goes on with its numbers: what it skips is lost."""
    skipping = record(build(SeatAssigned, agency_id="NASA"), sequence=6, epoch=2)
    await topic.put([*seats("NASA", range(1, 4)), skipping])
    async with run(command()) as subscriber, asyncio.timeout(40):
        await subscriber.process.wait()
    assert subscriber.process.returncode != 0
    assert "NASA: events 4 to 5 are missing" in subscriber.complaints
    assert subscriber.sequences("NASA") == [1, 2, 3]


@pytest.fixture
async def database(postgres: str) -> AsyncIterator[str]:
    """An empty database of the test's own."""
    name = f"test_subscriber_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(postgres)
    await admin.execute(f"create database {name}")
    server, _, options = postgres.partition("?")
    yield f"{server.rsplit('/', 1)[0]}/{name}?{options}".rstrip("?")
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


async def test_a_table_stays_exactly_in_step_however_often_the_subscriber_is_killed(
    topic: Topic, run: Callable[..., Any], eventually: Eventually, database: str
) -> None:
    events, kills, chance = 1500, 6, random.Random(20250806)
    connection = await asyncpg.connect(database)

    async def applied() -> int:
        if not await connection.fetchval("select to_regclass('place')"):
            return 0
        return int(await connection.fetchval("select coalesce(sum(sequence), 0) from place"))

    producing = asyncio.create_task(_produce(topic, events))
    for kill in range(kills):
        until = (kill + 1) * events * len(AGENCIES) // (kills + 2) + chance.randint(0, 200)
        async with run(python("postgres_in_step.py")(), POSTGRES_DSN=database) as subscriber:
            await eventually(_reached(applied, until), timeout=40)
            subscriber.process.kill()
    await producing
    async with run(python("postgres_in_step.py")(), POSTGRES_DSN=database) as subscriber:
        await eventually(_reached(applied, events * len(AGENCIES)), timeout=40)

    counted = await connection.fetch("select agency_id, held, ever_held from seats_of_agency order by agency_id")
    await connection.close()
    assigned = sum(1 for number in range(1, events + 1) if number % 3 == 0)
    revoked = sum(1 for number in range(1, events + 1) if number % 3 == 2)
    assert [tuple(row) for row in counted] == [(agency, assigned - revoked, assigned) for agency in sorted(AGENCIES)]


def _reached(applied: Callable[[], Awaitable[int]], wanted: int) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return await applied() >= wanted

    return check


async def _produce(topic: Topic, events: int) -> None:
    """Fill the streams step by step, each step with some records of the one before once more."""
    step = 50
    for start in range(1, events + 1, step):
        await topic.put(interleaved(range(max(1, start - 5), start + step)))

"""The example subscribers as programs, and the topic that they read."""

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from muster_contracts import topics
from muster_contracts.entitlements import SeatActivated, SeatAssigned, SeatReserved, SeatRevoked
from muster_contracts.testing import Record, build, record
from muster_local.node import NODE, installed
from muster_local.servers import kafka_at
from muster_operator.topics import create_topics, delete_topics

EXAMPLES = Path(__file__).parents[3] / "contracts/subscribers"
SCHEMAS = Path(__file__).parents[3] / "contracts/schemas"
SEATS = topics()["muster.entitlements.seat"]
AGENCIES = ("NASA", "NIH", "DOE")


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

    async def make_again(self, bootstrap: str, prefix: str) -> None:
        """Delete the topic and create it again: the new one has the same name, and another ID."""
        await delete_topics(kafka_at(bootstrap), [self.name])
        await create_topics(kafka_at(bootstrap), prefix, [SEATS], partitions=2)

    async def put(self, records: Sequence[Record]) -> None:
        for item in records:
            await self._producer.send(self.name, value=item.value, key=item.key, headers=item.headers)
        await self._producer.flush()


class Subscriber:
    """A running example, and what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.facts: list[dict[str, Any]] = []
        self.stderr = ""

    async def read(self) -> None:
        assert self.process.stdout
        async for line in self.process.stdout:
            self.facts.append(json.loads(line))

    async def read_stderr(self) -> None:
        assert self.process.stderr
        async for line in self.process.stderr:
            self.stderr += line.decode()

    def sequences(self, agency_id: str) -> list[int]:
        """The sequences of an agency's facts, in the order in which they were printed."""
        return [int(fact["id"].rsplit("/", 1)[1]) for fact in self.facts if fact["data"]["agency_id"] == agency_id]


def seats(agency_id: str, numbers: range) -> list[Record]:
    """The records of an agency's stream from one sequence to another.

    Every second seat is reserved and revoked, but never assigned.
    """
    lives = (SeatAssigned, SeatActivated, SeatRevoked), (SeatReserved, SeatRevoked)
    kinds = [(kind, seat) for seat, life in enumerate(lives) for kind in life]
    records = []
    for number in numbers:
        earlier, place = divmod(number - 1, len(kinds))
        kind, seat = kinds[place]
        event = build(kind, agency_id=agency_id, seat_id=f"seat_{earlier * len(lives) + seat}")
        records.append(record(event, sequence=number))
    return records


def typed(item: Record, event_type: str) -> Record:
    """The record with another type of event."""
    kept = [(name, event_type.encode() if name == "ce_type" else value) for name, value in item.headers]
    return replace(item, headers=kept)


def interleaved(numbers: range) -> list[Record]:
    """The same range of every agency's stream, with the agencies in turn at each step."""
    return [item for step in zip(*(seats(agency, numbers) for agency in AGENCIES), strict=True) for item in step]

"""Hostile records on every topic while good traffic flows: each parks in its own stream, and can be discarded there.

MUSTER_TEST_HOSTILE sets how many there are (`make faults` writes 20,000), MUSTER_TEST_SEED repeats a run.
"""

import asyncio
import os
import random
import secrets
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from urllib.parse import quote

from aiokafka import AIOKafkaProducer

from muster_contracts import (
    ClockMoved,
    Erasure,
    Event,
    encode,
    event_types,
    write_headers,
)
from muster_contracts.testing import build as example
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.messaging.events import Received
from muster_runtime.service import Service
from muster_runtime.settings import Settings
from tests.integration.runtime.core.attacker import DEEP, Attacker, Hostile, envelope_of
from tests.integration.runtime.core.probe.service import SCHEMA
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner

RECORDS = int(os.environ.get("MUSTER_TEST_HOSTILE", "400"))
SEED = int(os.environ.get("MUSTER_TEST_SEED") or secrets.randbelow(10**9))

GOOD_AGENCIES = [f"GOOD-{number}" for number in range(20)]
GOOD_EVENTS = max(5, RECORDS // 1_000)
HOSTILE_AGENCIES = min(25, RECORDS // 80)

# One class for each topic: what is wrong with a record does not depend on its type. Tombstones have no value to read.
CLASSES = {
    cls.topic: cls for cls in event_types().values() if not issubclass(cls, Erasure) and cls.topic != ClockMoved.topic
}


async def keep(uow: UnitOfWork, events: Sequence[Received[Any]]) -> None:
    """Write one effect for each event, from its data."""
    await uow.connection.execute(
        """
        insert into effect (agency_id, event_id, sequence, seat_id)
        select * from unnest($1::text[], $2::text[], $3::bigint[], $4::text[])
        """,
        [event.data.agency_id for event in events],
        [event.envelope.id for event in events],
        [event.envelope.sequence for event in events],
        [event.envelope.type for event in events],
    )


def build(settings: Settings) -> Service:
    return Service(schema=SCHEMA, settings=settings, subscriptions=dict.fromkeys(CLASSES.values(), keep))


class Field:
    """Everything that is put on the topics, by whom, and where it lies."""

    def __init__(self, probe: RunningService, dice: random.Random) -> None:
        self._probe = probe
        self._dice = dice
        self.attacker = Attacker(dice, probe.clock)
        self._sent: list[tuple[str, asyncio.Future[Any]]] = []
        self.hostile: dict[str, set[tuple[int, int]]] = defaultdict(set)

    async def fill(self) -> None:
        """Each hostile agency's stream has a good event, its worthless records, and another good event."""
        kafka = AIOKafkaProducer(bootstrap_servers=self._probe.runtime.settings.kafka_bootstrap, linger_ms=5)
        await kafka.start()
        try:
            for topic, (key, value, headers), worthless in self._plan():
                name = self._probe.topic_prefix + topic
                future = await kafka.send(name, value=value, key=key, headers=headers)
                if worthless:
                    self._sent.append((topic, future))
            await kafka.flush()
            for topic, future in self._sent:
                placed = await future
                self.hostile[topic].add((placed.partition, placed.offset))
        finally:
            await kafka.stop()

    def _plan(self) -> Iterator[tuple[str, Hostile, bool]]:
        rounds = RECORDS // (len(CLASSES) * HOSTILE_AGENCIES)
        hostile = [f"BAD-{number}" for number in range(HOSTILE_AGENCIES)]
        for agency_id in hostile:
            yield from ((topic, self._good(cls, agency_id, 1), False) for topic, cls in CLASSES.items())
        good = iter(
            [
                (topic, self._good(cls, agency_id, sequence), False)
                for sequence in range(1, GOOD_EVENTS + 1)
                for agency_id in GOOD_AGENCIES
                for topic, cls in CLASSES.items()
            ]
        )
        share = GOOD_EVENTS * len(GOOD_AGENCIES) // (rounds * HOSTILE_AGENCIES) + 1
        for number in range(rounds):
            for agency_id in hostile:
                for topic, cls in CLASSES.items():
                    # The first one has a position in the stream, which it occupies until it is discarded.
                    make = self.attacker.record if number else self.attacker.shapeless
                    yield topic, make(cls, agency_id), True
                    yield from islice(good, share)
        yield from good
        for agency_id in hostile:
            yield from ((topic, self._good(cls, agency_id, 3), False) for topic, cls in CLASSES.items())

    def _good(self, cls: type[Event], agency_id: str, sequence: int) -> Hostile:
        event = example(cls, agency_id=agency_id)
        return (
            event.record_key.encode(),
            encode(event),
            self.attacker.beside(write_headers(envelope_of(cls, agency_id, sequence, self._probe.clock))),
        )


async def effects(probe: RunningService, pattern: str) -> int:
    count: int = await probe.admin.fetchval("select count(*) from effect where agency_id like $1", pattern)
    return count


async def test_hostile_records_park_alone_and_can_be_discarded(run_service: ServiceRunner) -> None:
    print(f"MUSTER_TEST_SEED={SEED}")
    probe = await run_service(build, Settings, parked_streams=1)
    field = Field(probe, random.Random(SEED))
    begun = time.monotonic()
    await field.fill()
    every_good_one = len(CLASSES) * len(GOOD_AGENCIES) * GOOD_EVENTS
    worthless = sum(map(len, field.hostile.values()))
    behind_them = len(CLASSES) * HOSTILE_AGENCIES
    assert set(field.attacker.ways) == {
        "_without",
        "_doubled",
        "_huge",
        "_misformed",
        "_value",
        "_key",
        "_major",
        "_gap",
        "_optional",
        "_tombstone",
        "_keyless",
    }

    async def all_taken() -> bool:
        assert await effects(probe, "GOOD-%") == every_good_one
        assert await probe.admin.fetchval("select count(*) from parked_event") == worthless + behind_them
        return True

    await eventually(all_taken, timeout=60 + RECORDS / 100)
    print(f"{worthless} worthless records and {every_good_one} good ones in {time.monotonic() - begun:.0f} s")
    parked = await probe.admin.fetch("select topic, agency_id from parked_stream order by 1, 2")
    assert {row["agency_id"] for row in parked} == {"?", *(f"BAD-{number}" for number in range(HOSTILE_AGENCIES))}
    assert (await probe.client.get("/health/ready")).json()["reasons"] == []
    assert await effects(probe, "BAD-%") == behind_them

    for row in parked:
        await give_up(probe, row["topic"], row["agency_id"], field.hostile[row["topic"]])
    assert (await probe.client.get("/v1/parked")).json()["items"] == []
    assert await effects(probe, "BAD-%") == 2 * behind_them
    print(f"all given up after {time.monotonic() - begun:.0f} s")


async def test_a_worthless_record_on_the_clocks_topic_stops_no_process(run_service: ServiceRunner) -> None:
    """Neither one that is running nor one that starts after it."""
    probe = await run_service(build, Settings, roles=frozenset())

    async def put(value: bytes | None) -> None:
        await probe.producer.put_raw(ClockMoved.topic, key=b"clock", value=value, headers=[])

    first, second = (datetime(2030, month, 1, tzinfo=UTC) for month in (1, 2))
    for now in (first, second):
        for worthless in (None, b"", b"junk", b'{"now": 7}', b"[" * DEEP):
            await put(worthless)
        await put(ClockMoved(now=now).model_dump_json().encode())
        await eventually(lambda now=now: probe.clock.now() == now)
    await put(b"junk")
    started = await run_service(build, Settings, roles=frozenset(), beside=probe)
    assert started.clock.now() == second


async def give_up(probe: RunningService, topic: str, agency_id: str, worthless: set[tuple[int, int]]) -> None:
    """As an operator does: look; discard what is worthless; replay what is not; until nothing is parked."""
    path = f"/v1/parked/{topic}/{quote(agency_id, safe='')}"
    while (shown := await probe.client.get(path)).status_code == 200:
        assert len(shown.json()["reason"]) <= 2_000
        first = [{name: record[name] for name in ("partition", "offset")} for record in shown.json()["first_records"]]
        names = [(record["partition"], record["offset"]) for record in first]
        count = next((place for place, name in enumerate(names) if name not in worthless), len(names))
        if count:
            body = {"records": first[:count], "reason": "an attack"}
            discarded = await probe.client.post(f"{path}/discard", json=body)
            assert discarded.status_code == 200, discarded.text
        else:
            await probe.client.post(f"{path}/replay")
            left = await probe.client.get(path)
            assert left.status_code == 404 or left.json()["records"] < shown.json()["records"], left.text[:2000]
    assert shown.status_code == 404, shown.text

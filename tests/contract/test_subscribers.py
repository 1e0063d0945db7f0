"""The example subscribers, run as they are: against a real Kafka, and killed at any moment."""

import asyncio
import importlib
import json
import os
import random
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event

from muster_contracts import Decoded, MalformedRecord, NewerMajor, UnknownType, decode, topics
from muster_contracts.enrollment import ContactErased, ContactRecorded
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

    async def make_again(self, bootstrap: str, prefix: str) -> None:
        """Delete the topic and make it again: it has its name, and another id."""
        await delete_topics(bootstrap, [self.name])
        await create_topics(bootstrap, prefix, [SEATS], partitions=2)

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
        await eventually(lambda: len(subscriber.facts) >= 60 or subscriber.process.returncode, timeout=40)
        assert len(subscriber.facts) >= 60, subscriber.complaints
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


@pytest.mark.parametrize("command", PRINTERS)
async def test_a_second_instance_is_refused_and_the_first_goes_on(
    command: Callable[[], list[str]], topic: Topic, run: Callable[..., Any], eventually: Eventually, tmp_path: Path
) -> None:
    async with run(command()) as first:
        await eventually(lambda: "connected, waiting" in first.complaints, timeout=40)
        async with run(command(), STATE=str(tmp_path / "second.json")) as second, asyncio.timeout(40):
            await second.process.wait()
        assert second.process.returncode == 1
        assert "has a member already, and this example is for one instance" in second.complaints
        assert "Traceback" not in second.complaints
        await topic.put(seats("NASA", range(1, 4)))
        await eventually(lambda: first.sequences("NASA") == [1, 2, 3], timeout=40)


@pytest.mark.parametrize("command", PRINTERS)
async def test_a_state_of_another_log_is_refused_instead_of_skipping_its_facts(
    command: Callable[[], list[str]],
    topic: Topic,
    run: Callable[..., Any],
    eventually: Eventually,
    tmp_path: Path,
    kafka_bootstrap: str,
    topic_prefix: str,
) -> None:
    async def refused() -> None:
        async with run(command()) as subscriber, asyncio.timeout(40):
            await subscriber.process.wait()
        assert subscriber.process.returncode == 1
        assert "holds the places in another log" in subscriber.complaints
        assert subscriber.facts == []

    await topic.put(seats("NASA", range(1, 4)))
    async with run(command()) as subscriber:
        await eventually(lambda: len(subscriber.facts) >= 3, timeout=40)
    state = tmp_path / "positions.json"
    kept = state.read_text()
    cluster = next(value for name, value in json.loads(kept)["log"].items() if name.startswith("cluster"))
    state.write_text(kept.replace(cluster, "a-new-cluster"))
    await refused()

    state.write_text(kept)
    await topic.make_again(kafka_bootstrap, topic_prefix)
    await topic.put(seats("NASA", range(1, 4)))
    await refused()


def test_each_example_has_a_group_of_its_own() -> None:
    sources = [*EXAMPLES.glob("python/*.py"), *EXAMPLES.glob("javascript/*.mjs")]
    found = [
        group
        for source in sources
        for group in re.findall(r'(?:"GROUP",|env\.GROUP \?\?) "([\w-]+)"', source.read_text("utf-8"))
    ]
    assert len(found) == len(set(found)) == len(PRINTERS) + 1


async def test_the_places_of_a_table_are_bound_to_their_topic(
    topic: Topic,
    run: Callable[..., Any],
    eventually: Eventually,
    database: str,
    kafka_bootstrap: str,
    topic_prefix: str,
) -> None:
    async with run(python("postgres_in_step.py")(), POSTGRES_DSN=database) as subscriber:
        await eventually(lambda: "connected, waiting" in subscriber.complaints, timeout=40)
    await topic.make_again(kafka_bootstrap, topic_prefix)
    async with run(python("postgres_in_step.py")(), POSTGRES_DSN=database) as subscriber, asyncio.timeout(40):
        await subscriber.process.wait()
    assert subscriber.process.returncode == 1
    assert "facts would be skipped in silence" in subscriber.complaints


async def test_a_table_in_step_takes_two_instances_reports_an_epoch_and_refuses_a_huge_number(
    topic: Topic, run: Callable[..., Any], eventually: Eventually, database: str
) -> None:
    connection = await asyncpg.connect(database)

    async def held() -> int:
        return int(await connection.fetchval("select coalesce(sum(ever_held), 0) from seats_of_agency"))

    command = python("postgres_in_step.py")()
    async with (
        run(command, POSTGRES_DSN=database, INSTANCE="one") as one,
        run(command, POSTGRES_DSN=database, INSTANCE="two") as two,
    ):
        await eventually(lambda: "connected, waiting" in one.complaints, timeout=40)
        await eventually(lambda: "connected, waiting" in two.complaints, timeout=40)
        await topic.put(
            [*interleaved(range(1, 31)), record(build(SeatAssigned, agency_id="NIH"), sequence=31, epoch=2)]
        )
        await eventually(_reached(held, 31), timeout=40)
        reported = "NIH: reconcile what came after Position(epoch=1, sequence=30)"
        await eventually(lambda: reported in one.complaints + two.complaints)
        assert one.process.returncode is None
        assert two.process.returncode is None

        huge = record(build(SeatAssigned, agency_id="DOE"), sequence=31)
        huge.headers[:] = [(name, b"9" * 20 if name == "ce_sequence" else value) for name, value in huge.headers]
        await topic.put([huge])
        async with asyncio.timeout(40):
            await asyncio.wait(
                [asyncio.create_task(each.process.wait()) for each in (one, two)], return_when=asyncio.FIRST_COMPLETED
            )
    assert "header ce_sequence is" in one.complaints + two.complaints
    assert "Traceback" not in one.complaints + two.complaints
    assert await held() == 31
    await connection.close()


async def test_two_instances_that_share_agencies_for_a_moment_wait_and_never_for_each_other(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_DSN", database)
    monkeypatch.syspath_prepend(str(EXAMPLES / "python"))
    example = importlib.import_module("postgres_in_step")
    batches = [
        [*seats(first, range(1, 3)), *seats(second, range(1, 3))] for first, second in (("A1", "B1"), ("B1", "A1"))
    ]
    connections = [await asyncpg.connect(database) for _ in range(3)]
    await connections[0].execute(example.TABLES)

    async def applied(connection: Any, batch: Sequence[Record]) -> None:
        async with connection.transaction():
            await example.apply(connection, batch)

    held = connections[0].transaction()
    await held.start()
    await connections[0].execute(
        "insert into place select 'muster.entitlements.seat', a, 1, 0 from unnest(array['A1', 'B1']) as a"
    )
    applying = [
        asyncio.create_task(applied(connection, batch))
        for connection, batch in zip(connections[1:], batches, strict=True)
    ]
    waiting = (
        "select count(*) = 2 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(40):
        while not await connections[0].fetchval(waiting):
            await connections[0].execute("select pg_stat_clear_snapshot()")
    await held.commit()
    await asyncio.gather(*applying)
    assert await connections[0].fetchval("select sum(sequence) from place") == 4
    for connection in connections:
        await connection.close()


def hostile() -> list[tuple[str, Record]]:
    """Records that are wrong in one thing each, and two that are not."""
    good = record(build(SeatAssigned, agency_id="NASA"), sequence=1)

    def put(**changes: bytes | None) -> Record:
        headers = [(name, changes.get(name, value)) for name, value in good.headers]
        kept = [(name, value) for name, value in headers if value is not None]
        return replace(good, headers=kept)

    return [
        ("a fact", good),
        ("a type that is not known", put(ce_type=b"muster.entitlements.SeatPainted.v1")),
        ("another's type", put(ce_type=b"com.example.thing")),
        ("a newer major", put(ce_type=b"muster.entitlements.SeatAssigned.v2")),
        *((f"no {name}", put(**{name: None})) for name, _ in good.headers if name.startswith("ce_")),
        *((f"an empty {name}", put(**{name: b""})) for name, _ in good.headers if name.startswith("ce_")),
        *((f"{name} is no UTF-8", put(**{name: b"\xff"})) for name, _ in good.headers if name.startswith("ce_")),
        ("another specversion", put(ce_specversion=b"0.3")),
        ("a malformed type", put(ce_type=b"muster.entitlements.SeatAssigned.v")),
        ("a version of many digits", put(ce_type=b"muster.entitlements.SeatAssigned.v" + b"9" * 5000)),
        ("a huge sequence", put(ce_sequence=b"9" * 20)),
        ("a huge epoch", put(ce_epoch=b"9" * 11)),
        ("a negative sequence", put(ce_sequence=b"-1")),
        ("sequence 0", put(ce_sequence=b"0")),
        ("a time without a zone", put(ce_time=b"2025-08-06T00:00:00")),
        ("a time that is none", put(ce_time=b"yesterday")),
        ("a line break", put(ce_id=b"a\nb")),
        ("no value", replace(good, value=None)),
        ("an empty value", replace(good, value=b"")),
        ("JSON's null", replace(good, value=b"null")),
        ("no JSON", replace(good, value=b"{")),
        ("no UTF-8", replace(good, value=b"\xff\xfe")),
        ("a list", replace(good, value=b"[]")),
        ("another agency's data", put(ce_partitionkey=b"NIH")),
    ]


def verdict(item: Record) -> str:
    """What muster-contracts makes of a record."""
    try:
        decoded = decode(item.headers, item.value, item.key)
    except MalformedRecord:
        return "malformed"
    return {Decoded: "fact", UnknownType: "unknown", NewerMajor: "newer"}[type(decoded)]


def in_javascript(program: str, records: Sequence[Record]) -> Any:
    """What a program makes of `records`, as JSON; it stands beside the JavaScript example."""
    given = [
        {
            "headers": {name: value.hex() for name, value in item.headers},
            "key": item.key.hex(),
            "value": None if item.value is None else item.value.hex(),
        }
        for item in records
    ]
    prelude = """
        import { readFileSync } from "node:fs";
        const bytes = (hex) => (hex === null ? null : Buffer.from(hex, "hex"));
        const records = JSON.parse(readFileSync(0, "utf8")).map(({ headers, key, value }) => ({
          headers: Object.fromEntries(Object.entries(headers).map(([name, hex]) => [name, bytes(hex)])),
          key: bytes(key),
          value: bytes(value),
        }));
    """
    done = subprocess.run(
        [str(NODE), "--input-type=module", "--eval", prelude + program],
        cwd=installed(EXAMPLES / "javascript"),
        input=json.dumps(given).encode(),
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout)


def test_javascript_refuses_what_python_refuses() -> None:
    program = """
        const { MalformedRecord, read } = await import("./reading.mjs");
        const verdicts = records.map((record) => {
          try {
            return read(record).kind;
          } catch (error) {
            if (error instanceof MalformedRecord) return "malformed";
            throw error;
          }
        });
        console.log(JSON.stringify(verdicts));
    """
    names, records = zip(*hostile(), strict=True)
    expected = [verdict(item) for item in records]
    assert set(expected) == {"fact", "unknown", "newer", "malformed"}
    found = in_javascript(program, records)
    assert dict(zip(names, found, strict=True)) == dict(zip(names, expected, strict=True))


def test_a_tombstone_of_a_compacted_topic_erases_its_key_with_the_official_sdks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    person = record(build(ContactRecorded))
    tombstone = record(build(ContactErased, subject_ref=person.key.decode()), sequence=2)
    assert (tombstone.value, tombstone.key) == (None, person.key)

    monkeypatch.syspath_prepend(str(EXAMPLES / "python"))
    example = importlib.import_module("tombstones")
    latest: dict[bytes, Any] = {}
    example.keep(latest, person.headers, person.value, person.key)
    assert latest == {person.key: json.loads(person.value or b"")}
    # The SDK for Python takes a tombstone for an event without data; the one for JavaScript refuses it.
    unaware = KafkaMessage(headers=dict(tombstone.headers), key=tombstone.key, value=cast("bytes", tombstone.value))
    assert from_binary_event(unaware).get_data() is None
    example.keep(latest, tombstone.headers, tombstone.value, tombstone.key)
    assert latest == {}

    program = """
        const { Kafka } = await import("cloudevents");
        const { keep } = await import("./tombstones.mjs");
        const latest = new Map();
        const sizes = records.map((record) => (keep(latest, record), latest.size));
        const headers = {};
        for (const [name, value] of Object.entries(records[1].headers)) headers[name] = value.toString();
        let refusal = null;
        try {
          Kafka.toEvent({ headers, key: records[1].key.toString(), value: records[1].value });
        } catch (error) {
          refusal = error.message;
        }
        console.log(JSON.stringify({ sizes, refusal }));
    """
    assert in_javascript(program, [person, tombstone]) == {"sizes": [1, 0], "refusal": "Value is null or undefined"}


async def _produce(topic: Topic, events: int) -> None:
    """Fill the streams step by step, each step with some records of the one before once more."""
    step = 50
    for start in range(1, events + 1, step):
        await topic.put(interleaved(range(max(1, start - 5), start + step)))

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

from muster_contracts import Decoded, Event, MalformedRecord, NewerMajor, UnknownType, decode, encode, topics
from muster_contracts.enrollment import ContactErased, ContactRecorded
from muster_contracts.entitlements import SeatActivated, SeatAssigned, SeatBatchCompleted, SeatReserved, SeatRevoked
from muster_contracts.testing import Record, build, golden_records, record
from muster_local.topics import create_topics, delete_topics
from tests.contract.node import NODE, installed

EXAMPLES = Path(__file__).parents[2] / "contracts/subscribers"
SCHEMAS = Path(__file__).parents[2] / "contracts/schemas"
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
                "MUSTER_KAFKA_BOOTSTRAP": f"{kafka_bootstrap},{kafka_bootstrap}",  # as a list of several brokers
                "MUSTER_TOPIC_PREFIX": topic_prefix,
                "SCHEMAS": str(SCHEMAS),
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
    # What a relay that died after the acknowledgment does: the same again.
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
        assert "has another member, and this example is for one instance" in second.complaints
        assert "Traceback" not in second.complaints
        await topic.put(seats("NASA", range(1, 4)))
        await eventually(lambda: first.sequences("NASA") == [1, 2, 3], timeout=40)


@pytest.mark.parametrize("command", PRINTERS)
async def test_two_instances_that_start_at_once_do_not_both_go_on(
    command: Callable[[], list[str]], topic: Topic, run: Callable[..., Any], eventually: Eventually, tmp_path: Path
) -> None:
    await topic.put(interleaved(range(1, 11)))
    async with run(command()) as one, run(command(), STATE=str(tmp_path / "second.json")) as other:
        both = (one, other)

        def settled() -> bool:
            return all(each.process.returncode is not None or len(each.facts) >= 30 for each in both)

        await eventually(settled, timeout=40)
        refused = [each for each in both if each.process.returncode is not None]
        assert refused
        for each in refused:
            assert each.process.returncode == 1
            assert "has another member, and this example is for one instance" in each.complaints
            assert "Traceback" not in each.complaints
            assert each.facts == []
    if refused == [one, other]:
        async with run(command()) as again:
            await eventually(lambda: len(again.facts) >= 30, timeout=40)


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


GOOD = record(build(SeatAssigned, agency_id="NASA"), sequence=1, causation_id="c", traceparent="t")
DATA = json.loads(GOOD.value or b"")


def with_headers(**changes: bytes | None) -> Record:
    """A good record some headers of which are changed, added, or left out."""
    headers = {**dict(GOOD.headers), **changes}
    return replace(GOOD, headers=[(name, value) for name, value in headers.items() if value is not None])


def doubled(name: str, value: bytes) -> Record:
    """A good record one header of which is given once more."""
    return replace(GOOD, headers=[*GOOD.headers, (name, value)])


def with_value(event: type[Event] = SeatAssigned, /, **changes: Any) -> Record:
    """A good record some fields of whose value are changed or added; left out where they are `...`."""
    fields = {**json.loads(encode(build(event, agency_id="NASA")) or b""), **changes}
    value = json.dumps({name: field for name, field in fields.items() if field is not ...}).encode()
    return replace(with_headers(ce_type=event.event_type.encode()), value=value)


def with_text(text: str) -> Record:
    """A good record whose value has this JSON in a field that no schema knows."""
    return replace(GOOD, value=(GOOD.value or b"")[:-1] + b', "added": ' + text.encode() + b"}")


ENDLESS = (with_value(SeatBatchCompleted, rows="@").value or b"").replace(b'"@"', b"1e400")

CE_HEADERS = [name for name, _ in GOOD.headers if name.startswith("ce_")]
CE_TEXTS = [name for name in CE_HEADERS if name not in {"ce_specversion", "ce_time", "ce_epoch", "ce_sequence"}]

OTHER_KINDS: tuple[Any, ...] = (None, 7, [], {}, True)

# What is printed to no eye, as str.isprintable has it: by the categories C and Z of Unicode.
UNPRINTABLE = {
    "line break": "\n",
    "no-break space": "\u00a0",
    "line separator": "\u2028",
    "ideographic space": "\u3000",
    "soft hyphen": "\u00ad",
    "byte order mark": "\ufeff",
    "private": "\ue000",
    "unassigned": "\U000e0fff",
}

NO_INSTANTS = {
    "none": "yesterday",
    "without a zone": "2025-08-06T00:00:00",
    "30 February": "2025-02-30T00:00:00Z",
    "29 February of another year": "2025-02-29T00:00:00Z",
    "hour 24": "2025-08-06T24:00:00Z",
    "minute 60": "2025-08-06T00:60:00Z",
    "second 60": "2025-08-06T23:59:60Z",
    "month 13": "2025-13-06T00:00:00Z",
    "day 0": "2025-08-00T00:00:00Z",
    "year 0": "0000-01-01T00:00:00Z",
    "before year 1": "0001-01-01T00:00:00+01:00",
    "after year 9999": "9999-12-31T23:59:59-01:00",
    "an offset of 24 hours": "2025-08-06T00:00:00+24:00",
    "an offset of 75 minutes": "2025-08-06T00:00:00+00:75",
    "a day alone": "2025-08-06",
    "Arabic digits": "\u0662\u0660\u0662\u0665-08-06T00:00:00Z",
    "a space around": " 2025-08-06T00:00:00Z",
    "empty": "",
}
# These are read from a value by Python, and not from a header.
OTHER_FORMS = {
    "no seconds": "2025-08-06T00:00Z",
    "lower case": "2025-08-06t00:00:00z",
    "a space between": "2025-08-06 00:00:00Z",
}
OTHER_ISO = {
    "basic form": "20250806T000000Z",
    "a week's day": "2025-W32-3T00:00:00Z",
    "a comma": "2025-08-06T00:00:00,5Z",
}
INSTANTS = {
    "leap day": "2024-02-29T00:00:00Z",
    "offset": "2025-08-06T02:00:00+02:00",
    "no offset, negative": "2025-08-06T00:00:00-00:00",
    "one digit of a second": "2025-08-06T00:00:00.5Z",
    "nine digits of a second": "2025-08-06T00:00:00.123456789Z",
    "the first": "0001-01-01T00:00:00Z",
    "the last": "9999-12-31T23:59:59.999999Z",
    "year 99": "0099-02-28T00:00:00Z",
}


def hostile() -> list[tuple[str, Record]]:
    """Records that are wrong in one thing each, and some that are not."""
    reserved = "reserved_until"
    times = [*NO_INSTANTS.items(), *OTHER_FORMS.items(), *OTHER_ISO.items(), *INSTANTS.items()]
    values: dict[str, bytes | None] = {
        "none": None,
        "empty": b"",
        "JSON's null": b"null",
        "no JSON": b"{",
        "no UTF-8": b"\xff\xfe",
        "UTF-16": '{"agency_id": "NASA"}'.encode("utf-16"),
        "a byte order mark": b"\xef\xbb\xbf" + (GOOD.value or b""),
        "a list": b"[]",
        "a number": b"7",
        "a text": b'"text"',
        "JSON within a text": json.dumps((GOOD.value or b"").decode()).encode(),
        "more behind it": (GOOD.value or b"") + b"{}",
        "a field twice, the last one good": b'{"agency_id": 7, ' + (GOOD.value or b"")[1:],
        "a field twice, the last one bad": (GOOD.value or b"")[:-1] + b', "agency_id": 7}',
    }
    added = {
        "anything": '{"deep": [1, null, true, "x", 1.5]}',
        "half a character": '"\\ud800"',
        "the other half": '"\\udc00"',
        "a whole character in halves": '"\\ud83d\\ude00"',
        "half a character in a name": '{"\\ud800": 1}',
        "__proto__": '{"__proto__": {"agency_id": "NIH"}}',
        "a depth of 200 in all": '{"a":' * 199 + "1" + "}" * 199,
        "a depth of 201 in all": '{"a":' * 200 + "1" + "}" * 200,
        "a depth of 10,000": "[" * 10_000 + "]" * 10_000,
        "a control character": '"\x01"',
        "a number with a zero before": "01",
    }
    return [
        ("a fact", GOOD),
        *(
            (f"{event.__name__}, golden", with_value(event))
            for event in (SeatReserved, SeatRevoked, SeatBatchCompleted)
        ),
        ("a type that is not known", with_headers(ce_type=b"muster.entitlements.SeatPainted.v1")),
        ("another's type", with_headers(ce_type=b"com.example.thing")),
        ("a newer major", with_headers(ce_type=b"muster.entitlements.SeatAssigned.v2")),
        ("a malformed type", with_headers(ce_type=b"muster.entitlements.SeatAssigned.v")),
        ("version 0", with_headers(ce_type=b"muster.entitlements.SeatAssigned.v0")),
        ("a version of many digits", with_headers(ce_type=b"muster.entitlements.SeatAssigned.v" + b"9" * 5000)),
        *((f"no {name}", with_headers(**{name: None})) for name in CE_HEADERS),
        *((f"an empty {name}", with_headers(**{name: b""})) for name in CE_HEADERS),
        *((f"{name} is no UTF-8", with_headers(**{name: b"\xff"})) for name in CE_HEADERS),
        *((f"{name} is given twice", doubled(name, value)) for name, value in GOOD.headers),
        *((f"{name} of 257 bytes", with_headers(**{name: b"x" * 257})) for name in CE_HEADERS),
        *(
            (f"{name} of 256 bytes", with_headers(**{name: b"x" * 256}))
            for name in CE_TEXTS
            if name != "ce_partitionkey"
        ),
        *(
            (f"{name} holds a {what}", with_headers(**{name: f"a{text}b".encode()}))
            for name in CE_TEXTS
            for what, text in UNPRINTABLE.items()
        ),
        ("a space, and letters of all kinds", with_headers(ce_correlationid="anfrage süd 1 要求 😀".encode())),
        ("no content-type", with_headers(**{"content-type": None})),
        ("another content-type", with_headers(**{"content-type": b"application/cloudevents+json"})),
        ("another's header, twice", replace(GOOD, headers=[*GOOD.headers, ("x", b"1"), ("x", b"\xff")])),
        ("another's attribute", with_headers(**{"ce_Other-One": b"\xff"})),
        ("another specversion", with_headers(ce_specversion=b"0.3")),
        ("a huge sequence", with_headers(ce_sequence=b"9" * 20)),
        ("the last sequence", with_headers(ce_sequence=b"%d" % (2**63 - 1))),
        ("a huge epoch", with_headers(ce_epoch=b"9" * 11)),
        ("a negative sequence", with_headers(ce_sequence=b"-1")),
        ("a sequence with a sign", with_headers(ce_sequence=b"+1")),
        ("a sequence with a line break", with_headers(ce_sequence=b"1\n")),
        ("sequence 0", with_headers(ce_sequence=b"0")),
        *((f"ce_time: {what}", with_headers(ce_time=text.encode())) for what, text in times),
        ("ce_time of 41 bytes", with_headers(ce_time=b"2025-08-06T00:00:00.%sZ" % (b"0" * 20))),
        ("another agency's data", with_headers(ce_partitionkey=b"NIH")),
        *((f"a value: {what}", replace(GOOD, value=value)) for what, value in values.items()),
        *((f"a field that is not known: {what}", with_text(text)) for what, text in added.items()),
        *((f"no {name}", with_value(**{name: ...})) for name in DATA),
        *((f"{name} is {bad!r}", with_value(**{name: bad})) for name in DATA for bad in OTHER_KINDS),
        ("an agency in lower case", with_value(agency_id="nasa")),
        ("an agency with a line break", with_value(agency_id="NASA\n")),
        *((f"{reserved}: {what}", with_value(SeatReserved, **{reserved: text})) for what, text in NO_INSTANTS.items()),
        *((f"{reserved}: {what}", with_value(SeatReserved, **{reserved: text})) for what, text in INSTANTS.items()),
        *((f"a number is {bad!r}", with_value(SeatBatchCompleted, rows=bad)) for bad in (-1, 0, 1.0, 1.5, 2**31, "x")),
        ("an endless number", replace(with_value(SeatBatchCompleted, rows="@"), value=ENDLESS)),
        (f"{reserved} is null", with_value(SeatReserved, **{reserved: None})),
    ]


# What Python reads and JavaScript refuses: another form of a value than its schema's, which Muster never writes.
STRICTER = [
    *((f"an instant with {what}", with_value(SeatReserved, reserved_until=text)) for what, text in OTHER_FORMS.items()),
    ("an instant as a number", with_value(SeatReserved, reserved_until=1_754_438_400)),
    ("a number as text", with_value(SeatBatchCompleted, rows="5")),
    ("a truth value for a number", with_value(SeatBatchCompleted, rows=True)),
    ("a number that is no JSON", with_text("NaN")),
    ("a number that JavaScript rounds", with_text(str(2**53 + 1))),
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
            "headers": [[name, value.hex()] for name, value in item.headers],
            "key": item.key.hex(),
            "value": None if item.value is None else item.value.hex(),
        }
        for item in records
    ]
    prelude = """
        import { readFileSync } from "node:fs";
        const bytes = (hex) => (hex === null ? null : Buffer.from(hex, "hex"));
        const together = (headers) => {
          const all = {};
          for (const [name, hex] of headers) all[name] = name in all ? [all[name], bytes(hex)].flat() : bytes(hex);
          return all;  // as kafkajs has them
        };
        const records = JSON.parse(readFileSync(0, "utf8")).map(({ headers, key, value }) => ({
          headers: together(headers),
          key: bytes(key),
          value: bytes(value),
        }));
    """
    done = subprocess.run(
        [str(NODE), "--input-type=module", "--eval", prelude + program],
        cwd=installed(EXAMPLES / "javascript"),
        env={**os.environ, "SCHEMAS": str(SCHEMAS)},
        input=json.dumps(given).encode(),
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout)


def verdicts_of_javascript(records: Sequence[Record]) -> list[list[str]]:
    """What the JavaScript example makes of each record, and its complaint."""
    program = """
        const { MalformedRecord, read } = await import("./reading.mjs");
        const verdicts = records.map((record) => {
          try {
            return [read(record).kind, ""];
          } catch (error) {
            if (error instanceof MalformedRecord) return ["malformed", error.message];
            throw error;
          }
        });
        console.log(JSON.stringify(verdicts));
    """
    return cast("list[list[str]]", in_javascript(program, records))


def test_javascript_refuses_what_python_refuses() -> None:
    names, records = zip(*hostile(), strict=True)
    assert len(set(names)) == len(names)
    expected = [verdict(item) for item in records]
    assert set(expected) == {"fact", "unknown", "newer", "malformed"}
    found = [kind for kind, _ in verdicts_of_javascript(records)]
    assert dict(zip(names, found, strict=True)) == dict(zip(names, expected, strict=True))


def test_javascript_also_refuses_what_only_python_converts() -> None:
    records = [item for _, item in STRICTER]
    assert {verdict(item) for item in records} == {"fact"}
    assert {kind for kind, _ in verdicts_of_javascript(records)} == {"malformed"}


def test_javascript_names_the_field_and_the_rule_and_never_the_data() -> None:
    secret = "ada@nasa.example"
    values = [
        secret.encode(),
        b'"' + secret.encode() + b'" x',
        b'{"agency_id": "' + secret.encode(),
        json.dumps({"agency_id": "NASA", "subject_ref": secret}).encode(),
        json.dumps({**DATA, "agency_id": secret}).encode(),
        json.dumps({**DATA, "seat_id": [secret]}).encode(),
        json.dumps({**DATA, secret: "\ud800"}).encode(),
    ]
    told = verdicts_of_javascript([replace(GOOD, value=value) for value in values])
    assert {kind for kind, _ in told} == {"malformed"}
    assert not [complaint for _, complaint in told if secret in complaint or "ada" in complaint]
    assert "value: not JSON" in told[0][1]
    assert "must have required property 'seat_id'" in told[3][1]
    assert "agency_id: must match pattern" in told[4][1]
    assert "seat_id: must be string" in told[5][1]


def test_javascript_reads_every_golden_record_of_its_topic() -> None:
    golden = [each for each in golden_records() if each.event.topic == SEATS.name]
    assert {kind for kind, _ in verdicts_of_javascript([each.record for each in golden])} == {"fact"}


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

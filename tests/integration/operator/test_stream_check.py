"""`muster streams check` on real servers: what it calls complete, what it names, and what it waits for."""

import asyncio
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from muster_contracts import SERVICES, Envelope, event_id, source_of, topics
from muster_contracts.enrollment import AgencySuspended
from muster_local.programs import migrations_of
from muster_local.servers import kafka_at
from muster_operator.databases.provisioning import address, drop, password_of, provision
from muster_operator.topics import create_topics, delete_topics
from muster_runtime.clock import SystemClock
from muster_runtime.database.dbmate import migrate
from tests.integration.operator.trails import output
from tests.support.topics import Producer, put_unreadable

TOPIC = AgencySuspended.topic
READERS = sorted(topics()[TOPIC].readers)
EVENTS = 5


@dataclass
class Program:
    """Four services' databases, and topics, without the services."""

    admin: "asyncpg.Connection[Any]"
    environment: dict[str, str]

    async def start(self, *options: str) -> asyncio.subprocess.Process:
        """Start the check as an operator does."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "muster_operator", "streams", "check", *options),
            env={**os.environ, **self.environment, "COLUMNS": "400"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def check(self, *options: str) -> tuple[int | None, str]:
        """Its exit status, and what it says."""
        process = await self.start(*options)
        stdout, _ = await process.communicate()
        return process.returncode, stdout.decode()

    async def waiting(self) -> asyncio.subprocess.Process:
        """A check that has looked once, and now waits."""
        process = await self.start()
        assert process.stderr is not None
        assert b"1 stream under way" in await process.stderr.readline()
        return process

    async def missing(self) -> list[dict[str, Any]]:
        """What it names."""
        status, said = await self.check("--json", "--wait", "0")
        answer = json.loads(said)
        assert (status, answer["complete"]) == (1, False)
        missing: list[dict[str, Any]] = answer["missing"]
        return missing

    async def produced(self, last: int, *, outbox: Sequence[int] = ()) -> None:
        """Record that enrollment has produced events up to `last`, of which these are still in its outbox."""
        await self.admin.execute(
            """
            insert into enrollment.stream (topic, agency_id, last_sequence) values ($1, 'NASA', $2)
            on conflict (topic, agency_id) do update set last_sequence = excluded.last_sequence
            """,
            TOPIC,
            last,
        )
        await self.admin.executemany(
            """
            insert into enrollment.outbox
                (topic, agency_id, epoch, first_sequence, type, time, correlation_id, recorded_at, events, payloads)
            values ($1, 'NASA', 1, $2, 'type', now(), 'cor_1', now(), 1, '{null}')
            """,
            [(TOPIC, sequence) for sequence in outbox],
        )

    async def applied(self, service: str, last: int, next_offset: int | None = None) -> None:
        """Record that a reader has applied events up to `last`, and has read up to an offset, by default the same."""
        await self.admin.execute(
            f"""
            insert into {service}.applied (consumer_group, topic, agency_id, epoch, last_sequence)
            values ('group', $1, 'NASA', 1, $2)
            on conflict (consumer_group, topic, agency_id) do update set last_sequence = excluded.last_sequence
            """,
            TOPIC,
            last,
        )
        await self.admin.execute(
            f"""
            insert into {service}.consumed_partition (consumer_group, topic, kafka_partition, next_offset)
            values ('group', $1, 0, $2)
            on conflict (consumer_group, topic, kafka_partition) do update set next_offset = excluded.next_offset
            """,
            TOPIC,
            last if next_offset is None else next_offset,
        )


@pytest.fixture
async def program(postgres: str, kafka_bootstrap: str, topic_prefix: str) -> AsyncIterator[Program]:
    """NASA's stream has five events on its topic, and every reader has applied them."""
    database = f"test_check_{secrets.token_hex(6)}"
    for service in SERVICES:
        access = await provision(postgres, database, service, password_of(postgres))
        await asyncio.to_thread(migrate, access.owner_dsn, service, migrations_of(service))
    await create_topics(kafka_at(kafka_bootstrap), topic_prefix, topics().values(), partitions=1)
    admin = await asyncpg.connect(access.admin_dsn)
    environment = {
        "MUSTER_ADMIN_DSN": access.admin_dsn,
        "MUSTER_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "MUSTER_TOPIC_PREFIX": topic_prefix,
    }
    program = Program(admin, environment)
    async with Producer(kafka_at(kafka_bootstrap), topic_prefix) as producer:
        for sequence in range(1, EVENTS + 1):
            await producer.put(*event(sequence))
    await program.produced(EVENTS)
    for service in READERS:
        await program.applied(service, EVENTS)
    yield program
    await admin.close()
    await drop(postgres, database)
    await delete_topics(kafka_at(kafka_bootstrap), [topic_prefix + name for name in topics()])


def event(sequence: int) -> tuple[Envelope, AgencySuspended]:
    """An event as enrollment's relay sends it."""
    now = SystemClock().now()
    suspended = AgencySuspended(agency_id="NASA", enrollment_id="enr_1", reason="test", suspended_at=now)
    envelope = Envelope(
        id=event_id(TOPIC, "NASA", 1, sequence),
        source=source_of(TOPIC),
        type=suspended.event_type,
        time=now,
        agency_id="NASA",
        epoch=1,
        sequence=sequence,
        correlation_id="cor_1",
    )
    return envelope, suspended


async def test_complete_and_what_is_missing(program: Program) -> None:
    read = len(topics()) - 2  # all but the topics of the sandbox's clock and of reported use
    said = f"complete: 1 stream of {read} topics, every consumer is at the end\n"
    assert await program.check() == (0, said)

    # A record that Kafka's client cannot decode is named, and hides nothing.
    kafka = kafka_at(program.environment["MUSTER_KAFKA_BOOTSTRAP"])
    await put_unreadable(kafka, program.environment["MUSTER_TOPIC_PREFIX"] + TOPIC, "NASA", partitions=1)
    process = await program.start()
    stdout, stderr = await process.communicate()
    assert (process.returncode, stdout.decode()) == (0, said)
    assert f"{TOPIC}[0]@{EVENTS} cannot be decoded" in stderr.decode()

    # Databases that have lost commits: a reader's with its offsets, a reader's without, and the producer's.
    await program.applied("billing", 2)
    await program.applied("notify", 3, next_offset=EVENTS)
    await program.produced(4)
    assert [(each["service"], each["what"], each["after"]["sequence"]) for each in await program.missing()] == [
        ("billing", "a reader that is behind", 2),
        ("enrollment", "a producer that lost commits", 4),
        ("notify", "events that were read and are not applied", 3),
    ]
    status, table = await program.check("--wait", "0")
    assert status == 1
    assert "NASA" in table
    assert "4 to 5" in table

    for service in READERS:
        await program.applied(service, EVENTS)
    await program.produced(EVENTS + 2, outbox=[EVENTS + 1, EVENTS + 2])
    (waiting,) = await program.missing()
    assert (waiting["what"], waiting["last"]["sequence"]) == ("events that are not published yet", EVENTS + 2)
    # Two answered commands have taken the lost positions again, and their events wait.
    await program.admin.execute("update enrollment.outbox set first_sequence = first_sequence - 2")
    await program.produced(EVENTS)
    lost, waiting = await program.missing()
    assert (lost["what"], lost["after"]["sequence"]) == ("a producer that lost commits", EVENTS - 2)
    assert waiting["what"] == "events that are not published yet"
    await program.admin.execute("delete from enrollment.outbox")
    await program.produced(EVENTS + 2)
    (lost,) = await program.missing()
    assert lost["what"] == "events that the topic lacks"


async def test_an_event_of_the_same_time_and_cause_with_other_data_is_a_lost_commit(
    program: Program, kafka_bootstrap: str, topic_prefix: str
) -> None:
    """An enrollment that is applied again may get new IDs, and nothing else that is new."""
    envelope, data = event(EVENTS + 1)
    async with Producer(kafka_at(kafka_bootstrap), topic_prefix) as producer:
        await producer.put(envelope, data)
    await program.produced(EVENTS + 1, outbox=[EVENTS + 1])
    for service in READERS:
        await program.applied(service, EVENTS + 1)
    alike = "update enrollment.outbox set time = $1, payloads = array[$2::bytea]"
    payload = data.__pydantic_serializer__.to_json(data)
    await program.admin.execute(alike, envelope.time, payload)
    assert [each["what"] for each in await program.missing()] == ["events that are not published yet"]
    await program.admin.execute(alike, envelope.time, payload.replace(b"enr_1", b"enr_2"))
    assert "a producer that lost commits" in [each["what"] for each in await program.missing()]


async def test_a_service_that_is_not_named_needs_no_schema(program: Program) -> None:
    await program.admin.execute("drop schema notify cascade")
    named = [part for name in SERVICES if name != "notify" for part in ("--service", name)]
    status, said = await program.check(*named)
    assert (status, said.startswith("complete: 1 stream ")) == (0, True), said


async def test_a_role_that_sees_only_some_rows_is_bad_input(program: Program) -> None:
    """Row-level security hides every agency's rows, so healthy books would seem lost, and altered ones correct."""
    dsn, role, password = program.environment["MUSTER_ADMIN_DSN"], f"reader_{secrets.token_hex(4)}", secrets.token_hex()
    await program.admin.execute(f"create role {role} login password '{password}' in role pg_read_all_data")
    database = urlsplit(dsn).path.removeprefix("/")
    await program.admin.execute(f'grant connect on database "{database}" to {role}')
    environment = program.environment | {
        "MUSTER_ADMIN_DSN": address(dsn, database, role, password),
        "MUSTER_ENROLLMENT_URL": "http://127.0.0.1:1",
        "MUSTER_TOKEN": "token",
    }
    said = "muster: MUSTER_ADMIN_DSN: its role must bypass row-level security (bypassrls) to see every agency's rows\n"
    erase = "erase-lost NASA con_1 --reason lost"
    try:
        for command in ("streams check", "reconcile", "audit verify", "trace cor_1", erase):
            arguments = (sys.executable, "-m", "muster_operator", *command.split())
            assert await output(*arguments, **environment) == (2, said), command
        await program.admin.execute(f"alter role {role} bypassrls")
        status, said = await output(sys.executable, "-m", "muster_operator", "streams", "check", **environment)
        assert (status, said.startswith("complete: 1 stream ")) == (0, True), said
    finally:
        await program.admin.execute(f"drop owned by {role}; drop role {role}")


async def test_the_check_waits_for_what_is_under_way(program: Program, kafka_bootstrap: str, topic_prefix: str) -> None:
    """An event that is published or applied meanwhile is not missing."""
    await program.produced(EVENTS + 1, outbox=[EVENTS + 1])
    process = await program.waiting()
    async with Producer(kafka_at(kafka_bootstrap), topic_prefix) as producer:
        await producer.put(*event(EVENTS + 1))
    await program.admin.execute("delete from enrollment.outbox")
    for service in READERS:
        await program.applied(service, EVENTS + 1)
    stdout, _ = await process.communicate()
    assert stdout.startswith(b"complete: 1 stream ")


async def test_new_events_do_not_keep_it_from_ending(program: Program, kafka_bootstrap: str, topic_prefix: str) -> None:
    """A reader that is always a little behind has applied all once it reaches where the topic ended at first."""
    await program.applied("notify", 3)
    process = await program.waiting()
    async with Producer(kafka_at(kafka_bootstrap), topic_prefix) as producer:
        await program.produced(EVENTS + 1)
        await producer.put(*event(EVENTS + 1))
    await program.applied("notify", EVENTS)
    stdout, _ = await process.communicate()
    assert stdout.startswith(b"complete: 1 stream ")


async def test_servers_that_do_not_answer_are_named(program: Program) -> None:
    program.environment["MUSTER_ADMIN_DSN"] = "postgresql://admin@127.0.0.1:1/muster"
    process = await program.start()
    stdout, stderr = await process.communicate()
    assert process.returncode == 5
    assert stderr.startswith(b"muster: Postgres cannot be queried: ")
    assert (stdout, stderr.count(b"\n")) == (b"", 1)

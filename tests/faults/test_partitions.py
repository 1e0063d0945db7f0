"""A partition that does not answer delays only its own streams; an abandoned client leaves nothing behind."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from muster_contracts import read_headers
from muster_contracts.entitlements import PersonRecorded, SeatAssigned
from muster_local.servers import kafka_at
from muster_runtime.clock import SystemClock
from muster_runtime.database.transactions import Database
from muster_runtime.database.wakeup import WakeupListener
from muster_runtime.messaging import flight
from muster_runtime.messaging.backlog import Backlog
from muster_runtime.messaging.producers import partition_of
from muster_runtime.messaging.relay import Relay
from muster_runtime.scheduling import hold
from tests.faults import servers
from tests.faults.findings import Findings
from tests.faults.probe.service import DIRECTORY, SCHEMA, TOPIC
from tests.faults.servers import Server
from tests.support.contexts import CONTEXT
from tests.support.databases import Databases
from tests.support.eventually import eventually
from tests.support.topics import Reader

# Pauses of the broker: enough for a leak of one task or socket in each of them to show.
PAUSES = 4


class Outbox:
    """The probe's outbox, with its relay in this process."""

    def __init__(
        self, database: Database, admin: "asyncpg.Connection[Any]", bootstrap: str, prefix: str, partitions: int
    ) -> None:
        self.bootstrap = bootstrap
        self.prefix = prefix
        self._database = database
        self._admin = admin
        self._numbers: dict[str, int] = {}
        self.relay = Relay(
            database,
            WakeupListener("", "probe", SystemClock()).wakeup,
            service="probe",
            holder="test",
            kafka=kafka_at(bootstrap),
            topics={TOPIC: partitions, DIRECTORY: partitions},
            topic_prefix=prefix,
            backlog=Backlog(1_000_000),
            on_restored=lambda: hold.begin_for_lost_commits(database, SystemClock(), "probe"),
        )

    async def write(self, agency_id: str) -> None:
        """Write an event of each topic."""
        number = self._numbers[agency_id] = self._numbers.get(agency_id, 0) + 1
        reference = f"sub_{number}"
        async with self._database.write(agency_id, context=CONTEXT) as uow:
            uow.publish(SeatAssigned(agency_id=agency_id, seat_id=str(number), subject_ref=reference))
            uow.publish(
                PersonRecorded(agency_id=agency_id, subject_ref=reference, name="Ada", email=f"{number}@example.gov")
            )

    async def waiting(self) -> set[str]:
        """The agencies whose events wait."""
        return {row["agency_id"] for row in await self._admin.fetch("select agency_id from outbox")}

    async def is_given_up(self) -> bool:
        """Whether the relay of the facts has given up its client and then its lease, which it soon takes again."""
        query = "select exists (select from lease where duty = 'relay' and expires_at > clock_timestamp())"
        return not await self._admin.fetchval(query)

    async def holds_only(self, *agencies: str) -> bool:
        """Whether events of exactly these agencies wait."""
        waiting = await self.waiting()
        assert waiting == set(agencies), f"{waiting} wait"
        return True

    async def sequences(self, topic: str, agency_id: str) -> list[int]:
        """The sequences on a topic, each at its first occurrence."""
        async with Reader(kafka_at(self.bootstrap), self.prefix, [topic]) as reader:
            envelopes = [read_headers(record.headers) for record in await reader.records()]
        return list(dict.fromkeys(e.sequence for e in envelopes if e.agency_id == agency_id))

    async def is_whole(self, *agencies: str) -> bool:
        """Whether every event of each agency is on its topic, in order."""
        for agency_id in agencies:
            for topic in (TOPIC, DIRECTORY):
                assert await self.sequences(topic, agency_id) == list(range(1, self._numbers[agency_id] + 1))
        return True


@asynccontextmanager
async def relaying(postgres: Server, bootstrap: str, prefix: str, partitions: int) -> AsyncIterator[Outbox]:
    access = await Databases(postgres.address).make("probe", SCHEMA.migrations)
    database = await Database(access.worker_dsn, "probe", SystemClock(), size=5).open()
    admin = await asyncpg.connect(access.admin_dsn, server_settings={"search_path": "probe"})
    outbox = Outbox(database, admin, bootstrap, prefix, partitions)
    task = asyncio.create_task(outbox.relay.run())
    yield outbox
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await admin.close()
    await database.close()


async def create_topics(bootstrap: str, prefix: str, assignment: dict[int, list[int]]) -> None:
    """Create the topics, with the given brokers for each partition."""
    admin = AIOKafkaAdminClient(**kafka_at(bootstrap).options())
    await admin.start()
    created: Any = await admin.create_topics(
        [
            NewTopic(
                prefix + name,
                -1,
                -1,
                replica_assignments=assignment,
                topic_configs={"min.insync.replicas": "1"},
            )
            for name in (TOPIC, DIRECTORY)
        ]
    )
    await admin.close()
    assert [error for _, error, *_ in created.topic_errors] == [0, 0], created


def agency_in(partition: int, partitions: int) -> str:
    """An agency whose events are in a partition."""
    return next(a for a in (f"AG{n}" for n in range(1000)) if partition_of(a.encode(), partitions) == partition)


async def test_32_a_broker_that_pauses_again_and_again_leaves_no_task_and_no_socket_behind(
    postgres_server: Server,
    kafka_server: Server,
    topic_prefix: str,
    findings: Findings,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    # Otherwise it takes two minutes until the client is given up, with all that it has in flight.
    monkeypatch.setattr(flight, "SEND_SECONDS", 3)
    monkeypatch.setattr(flight, "PATIENCE_SECONDS", 0.5)
    await create_topics(kafka_server.address, topic_prefix, {0: [1], 1: [1]})
    # A service rarely collects garbage: what only a collection would close stays open.
    gc.disable()
    request.addfinalizer(gc.enable)
    async with relaying(postgres_server, kafka_server.address, topic_prefix, 2) as outbox:
        await outbox.write("NASA")
        await eventually(outbox.holds_only, timeout=60)
        before = possessions(kafka_server)
        for _ in range(PAUSES):
            kafka_server.send(signal.SIGSTOP)
            await outbox.write("NASA")
            await eventually(outbox.is_given_up, timeout=60)
            kafka_server.send(signal.SIGCONT)
            await eventually(outbox.holds_only, timeout=90)
        findings.fault_is_over()

        async def no_more_than_before() -> bool:
            tasks, sockets = possessions(kafka_server)
            assert tasks <= before[0], f"{tasks} tasks, {before[0]} before: {asyncio.all_tasks()}"
            assert sockets <= before[1], f"{sockets} sockets, {before[1]} before"
            return True

        await eventually(no_more_than_before, timeout=30)
        await outbox.is_whole("NASA")
        findings.recovered(f"{PAUSES} pauses; {before[0]} tasks and {before[1]} sockets as before")


def possessions(broker: Server) -> tuple[int, int]:
    """Tasks of the event loop, and connections to the broker."""
    port = int(broker.address.rpartition(":")[2])
    connections = psutil.Process().net_connections("tcp")
    return len(asyncio.all_tasks()), sum(bool(c.raddr) and c.raddr.port == port for c in connections)


async def test_33_a_partition_without_a_leader_stops_its_own_streams_alone(
    tmp_path: Path, postgres_server: Server, topic_prefix: str, findings: Findings
) -> None:
    brokers = servers.kafka_quorum(tmp_path, 3)
    for broker in brokers:
        broker.start()
    for broker in brokers:
        await broker.up()
    bootstrap = ",".join(broker.address for broker in brokers)
    await create_topics(bootstrap, topic_prefix, {0: [3], 1: [1], 2: [2]})
    alone, *others = (agency_in(partition, 3) for partition in range(3))
    async with relaying(postgres_server, bootstrap, topic_prefix, 3) as outbox:
        await write_all(outbox, [alone, *others], 3)
        await eventually(outbox.holds_only, timeout=90)
        brokers[2].kill()
        for _ in range(3):
            await write_all(outbox, [alone, *others], 5)
            await eventually(lambda: outbox.holds_only(alone), timeout=90)
        reason = outbox.relay.held or ""
        assert f"{topic_prefix}{TOPIC}[0] has no leader" in reason
        assert f"{topic_prefix}{DIRECTORY}[0] has no leader" in reason
        await brokers[2].up()
        findings.fault_is_over()
        await write_all(outbox, [alone, *others], 2)
        await eventually(outbox.holds_only, timeout=90)
        await eventually(lambda: outbox.is_whole(alone, *others))
        findings.recovered(f"readiness said: {reason.replace(topic_prefix, '')}")
        assert outbox.relay.held is None
    for broker in brokers:
        broker.kill()


async def write_all(outbox: Outbox, agencies: Sequence[str], times: int) -> None:
    for _ in range(times):
        for agency_id in agencies:
            await outbox.write(agency_id)

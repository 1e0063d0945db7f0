"""The field of a fault: the probe's processes on a database and topics of their own, its traffic, and the verdict."""

import json
import os
import random
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg
import httpx
from aiokafka import ConsumerRecord

from muster_contracts import ClockMoved, Event, MalformedRecord, read_headers, topics
from muster_contracts.enrollment import AgencyReinstated
from muster_contracts.entitlements import SeatAssigned
from muster_local.child import Program
from muster_local.servers import external_kafka_settings
from muster_operator.databases.provisioning import Access
from muster_operator.topics import create_topics, delete_topics
from muster_runtime.clock import SystemClock
from muster_runtime.database.transactions import Database
from muster_runtime.messaging.connection import KafkaConnection
from tests.faults import oracle
from tests.faults.probe.service import ANSWERS, DIRECTORY, SCHEMA, TOPIC
from tests.faults.readiness import health
from tests.faults.recorder import Recorder
from tests.faults.servers import Process, free_port
from tests.faults.tables import ProbeTables
from tests.faults.traffic import ProbeTraffic
from tests.support.contexts import CONTEXT
from tests.support.databases import Databases
from tests.support.eventually import eventually
from tests.support.services import ISSUER, TokenIssuer
from tests.support.topics import Producer, Reader

TOPICS = (TOPIC, ANSWERS, DIRECTORY, ClockMoved.topic)

PARTITIONS = 3


@dataclass(frozen=True)
class Where:
    """The addresses that a process is given: the servers' own, or a proxy's."""

    access: Access
    bootstrap: str


@dataclass
class Field(ProbeTables, ProbeTraffic):
    """Everything that a fault is tried on. Use it as a context.

    `dice` are the test's; the traffic, which runs at the same time, has its own, so that both are repeatable.
    """

    folder: Path
    postgres_dsn: str
    kafka: KafkaConnection
    prefix: str
    tokens: TokenIssuer
    seed: int
    access: Access = field(init=False)
    admin: "asyncpg.Connection[Any]" = field(init=False)
    dice: random.Random = field(init=False)
    recorder: Recorder = field(init=False)
    processes: list[Process] = field(default_factory=list)
    api: Process = field(init=False)
    client: httpx.AsyncClient = field(init=False)
    traffic_dice: random.Random = field(init=False)
    _exit: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def bootstrap(self) -> str:
        """Kafka's address."""
        return self.kafka.bootstrap

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.traffic_dice = random.Random(f"{self.seed}/traffic")

    async def __aenter__(self) -> Self:
        databases = Databases(self.postgres_dsn)
        self.access = await databases.make("probe", SCHEMA.migrations)
        self.admin = await self.connect()
        self.recorder = Recorder(self.folder / "commands.jsonl")
        described = [topics()[name] for name in TOPICS]
        await create_topics(self.kafka, self.prefix, described, partitions=PARTITIONS)
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        for process in self.processes:
            process.kill()
            print(f"--- {process.program.name} ({process.exit_status})", *_last_lines(process.said()), sep="\n")
        await self._exit.aclose()
        await self.admin.close()
        await delete_topics(self.kafka, [self.prefix + name for name in TOPICS])

    def start(
        self,
        *roles: str,
        breaking: Sequence[str] = (),
        where: Where | None = None,
        settings: Mapping[str, str | None] | None = None,
    ) -> Process:
        """Start a process of the probe with some roles.

        `breaking` are the launcher's options, `settings` variables beside those that it needs; None unsets one.
        """
        where = where or Where(self.access, self.bootstrap)
        port = free_port()
        environment: dict[str, str | None] = {
            "MUSTER_ENVIRONMENT": "sandbox",
            "MUSTER_INSTANCE": f"probe-{len(self.processes)}",
            "MUSTER_HTTP_PORT": str(port),
            "MUSTER_POSTGRES_API_DSN": where.access.api_dsn,
            "MUSTER_POSTGRES_WORKER_DSN": where.access.worker_dsn,
            **external_kafka_settings(),
            "MUSTER_KAFKA_BOOTSTRAP": where.bootstrap,
            "MUSTER_TOPIC_PREFIX": self.prefix,
            "MUSTER_TOPIC_PARTITIONS": str(PARTITIONS),
            "MUSTER_HTTP_TOKEN_RATE": "1000000",  # the traffic is one client's
            "MUSTER_HTTP_AGENCY_RATE": "1000000",
            "MUSTER_OIDC_ISSUER": ISSUER,
            "MUSTER_OIDC_JWKS": str(self.tokens.jwks),
            **(settings or {}),
        }
        options = [option for role in roles for option in ("--role", role)]
        launcher = [sys.executable, "-m", "tests.faults.launcher", *breaking, "-m"]
        program = Program(
            f"probe {' '.join(roles)}",
            [*launcher, "tests.faults.probe", "serve", *options],
            f"http://127.0.0.1:{port}",
            {name: value for name, value in (os.environ | environment).items() if value is not None},
        )
        process = Process(program, self.folder / f"probe-{len(self.processes)}.log")
        process.start()
        self.processes.append(process)
        return process

    async def serve(
        self,
        *roles: str,
        breaking: Sequence[str] = (),
        where: Where | None = None,
        settings: Mapping[str, str | None] | None = None,
    ) -> Process:
        """Start the process that answers commands, and wait until it does."""
        self.api = self.start("api", *roles, breaking=breaking, where=where, settings=settings)
        token = self.tokens.token("probe:read", "probe:write", "probe:operate", "sandbox:operate")
        self.client = await self._exit.enter_async_context(
            httpx.AsyncClient(
                base_url=self.api.program.address,
                headers={"Authorization": f"Bearer {token}"},
                timeout=30,
                trust_env=False,
            )
        )
        await self.ready(self.api)
        return self.api

    async def ready(self, *processes: Process, timeout: float = 60) -> None:
        """Wait until processes say that they can do their work."""
        for process in processes:
            await eventually(lambda: health(process), timeout=timeout)  # noqa: B023 - awaited within the turn

    async def replay(self, agency_id: str, by: Process | None = None) -> Any:
        """Request a parked stream's replay; None if the process dies during it."""
        return await self._operate(f"/v1/parked/{TOPIC}/{agency_id}/replay", None, by)

    async def discard(self, agency_id: str, reason: str, by: Process | None = None) -> Any:
        """Discard a parked stream's first record."""
        first = await self.admin.fetchrow(
            """
            select kafka_partition as partition, kafka_offset as offset
            from parked_event
            where agency_id = $1
            order by epoch, sequence, kafka_partition, kafka_offset
            limit 1
            """,
            agency_id,
        )
        body = {"reason": reason, "records": [dict(first or {})]}
        return await self._operate(f"/v1/parked/{TOPIC}/{agency_id}/discard", body, by)

    async def _operate(self, path: str, body: Any, by: Process | None) -> Any:
        try:
            reply = await self.client.post(f"{(by or self.api).program.address}{path}", json=body, timeout=60)
        except httpx.TransportError:
            return None
        assert reply.is_success, reply.text
        return reply.json()

    async def evidence(self) -> oracle.Evidence:
        """What the oracle judges."""
        return await oracle.gather(self.admin, await self.log(), self.recorder.commands())

    async def differences(self) -> list[str]:
        """The oracle's verdict."""
        return oracle.differences(await self.evidence())

    async def log(self) -> list[oracle.Occurrence]:
        """The events in Kafka, from the topics' beginning; records that are not the probe's events are left out."""
        async with Reader(self.kafka, self.prefix, [TOPIC, ANSWERS]) as reader:
            return [event for record in await reader.records() if (event := _occurrence(record))]

    async def repetitions(self) -> int:
        """How many records of the topic repeat an earlier event."""
        log = await self.log()
        return len(log) - len({(event.topic, event.agency_id, event.position) for event in log})

    async def until_dead(self, process: Process, timeout: float = 60) -> None:
        """Wait until a process that was told to break has killed itself."""
        await eventually(lambda: not process.runs, timeout=timeout)
        assert process.exit_status == -signal.SIGKILL, process.said()[-3000:]

    async def publish(self, *events: Event) -> None:
        """Publish events as the probe, each in its own transaction."""
        database = await Database(self.access.api_dsn, "probe", SystemClock()).open()
        for event in events:
            async with database.write(event.agency_id, context=CONTEXT) as uow:
                uow.publish(event)
        await database.close()

    async def directory(self) -> list[str | None]:
        """The values on the compacted topic, in order; None is a tombstone."""
        async with Reader(self.kafka, self.prefix, [DIRECTORY]) as reader:
            return [record.value and record.value.decode() for record in await reader.records()]

    async def move_clock(self, now: datetime, *processes: Process, until: datetime | None = None) -> None:
        """Move the sandbox's time to `now`, and wait until the processes' clocks show that, or `until`."""
        value = ClockMoved(now=now).model_dump_json().encode()
        headers = [("ce_type", ClockMoved.event_type.encode())]
        producer = await self.producer()
        await producer.put_raw(ClockMoved.topic, key=None, value=value, headers=headers)
        for process in processes:
            await eventually(lambda: self._stands_at(process, until or now))  # noqa: B023 - awaited within the turn

    async def _stands_at(self, process: Process, now: datetime) -> bool:
        state = (await self.client.get(f"{process.program.address}/sandbox/state")).json()
        return datetime.fromisoformat(state["now"]) == now

    async def producer(self) -> Producer:
        """A producer that writes any record to the topics."""
        return await self._exit.enter_async_context(Producer(self.kafka, self.prefix))


def _last_lines(log: str) -> list[str]:
    """The last lines of a log that are not about requests: pytest shows them if a test fails."""
    return [line[:600] for line in log.splitlines() if '"event": "request"' not in line][-15:]


def _occurrence(record: "ConsumerRecord[Any, Any]") -> oracle.Occurrence | None:
    try:
        envelope = read_headers(record.headers)
    except MalformedRecord:
        return None
    position = (envelope.epoch, envelope.sequence)
    if envelope.type == SeatAssigned.event_type:
        seat = json.loads(record.value or b"")
        number = int(seat["subject_ref"].removeprefix("sub_"))
        return oracle.Occurrence(TOPIC, envelope.agency_id, position, seat["seat_id"], number)
    if envelope.type == AgencyReinstated.event_type:
        return oracle.Occurrence(
            ANSWERS, envelope.agency_id, position, json.loads(record.value or b"")["enrollment_id"]
        )
    return None

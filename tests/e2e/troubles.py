"""The troubles that runbooks are for, and how to detect them."""

import time
from pathlib import Path

import asyncpg
import httpx

from muster_contracts import Envelope, event_id, source_of, write_headers
from muster_contracts.enrollment import AgencyEnrolled, AgencySuspended
from muster_local.servers import kafka_at
from muster_operator.topics import connect
from muster_runtime.clock import SystemClock
from tests.faults.probe.service import SCHEMA
from tests.support.databases import _fingerprint
from tests.support.eventually import eventually
from tests.support.operator import Operator
from tests.support.topics import Producer

TOPIC = AgencySuspended.topic
READERS = ("billing", "entitlements", "notify")

# The runbooks that only look, on a stack without the trouble that they are for.
LOOKING = (
    "process-gone.md",
    "not-ready.md",
    "topic-repartitioned.md",
    "unreadable-record.md",
    "consumer-retrying.md",
    "consumer-behind.md",
    "usage-behind.md",
    "outbox-stuck.md",
    "deadlines-late.md",
    "deliveries-late.md",
    "audit-finding.md",
    "purge-overdue.md",
    "issuer-silent.md",
    "break-glass.md",
    "requests-refused.md",
    "requests-fail.md",
    "budget-burns.md",
    "credential-refused.md",
    "rotate-secrets.md",
    "standby-gone.md",
    "catalog-rollout-stuck.md",
    "unknown-type.md",
)

# Long enough for a busy machine.
PATIENCE = 90


class RestoreDrill:
    """Measures a restore for docs/scale.md: the time is printed (pytest shows it with -rP), not judged."""

    def restore(self, operator: Operator, **variables: str) -> str:
        """Follow the runbook from the stop of the service until it runs again; return the output."""
        self._size = Path(variables["BACKUP"]).stat().st_size
        self._began = time.monotonic()
        said = operator.follow("restore.md", part="Restore", **variables)
        self._started = time.monotonic() - self._began
        return said

    def end(self) -> None:
        """Call this once the service has repeated its lost decisions, and its readers have applied them."""
        repaired = time.monotonic() - self._began
        print(f"restored {self._size:,} bytes: runs after {self._started:.1f} s, repaired after {repaired:.1f} s")


def broken(agency_id: str, sequence: int) -> tuple[Envelope, AgencySuspended]:
    """An event of an unknown agency."""
    now = SystemClock().now()
    event = AgencySuspended(agency_id=agency_id, enrollment_id="enr_none", reason="test", suspended_at=now)
    envelope = Envelope(
        id=event_id(TOPIC, agency_id, 1, sequence),
        source=source_of(TOPIC),
        type=event.event_type,
        time=now,
        agency_id=agency_id,
        epoch=1,
        sequence=sequence,
        correlation_id="cor_test",
    )
    return envelope, event


async def parked(operator: Operator, service: str, agency_id: str) -> int:
    count: int = await operator.sql(
        service, "select coalesce(sum(records), 0) from parked_stream where agency_id = $1", agency_id
    )
    return count


async def poison(operator: Operator, producer: Producer, agency_id: str) -> None:
    """Park an agency's stream in every reader with a record that none of them can read."""
    envelope = broken(agency_id, 1)[0]._replace(type=AgencyEnrolled.event_type)
    await producer.put_raw(TOPIC, key=agency_id.encode(), value=b"not JSON", headers=write_headers(envelope))
    await parked_everywhere(operator, agency_id)


async def parked_everywhere(operator: Operator, agency_id: str) -> None:
    for service in READERS:
        await eventually(lambda service=service: parked(operator, service, agency_id), timeout=PATIENCE)


async def has_a_term(operator: Operator, agency_id: str) -> bool:
    return bool(await operator.sql("billing", "select count(*) from term where agency_id = $1", agency_id))


async def first_parked(operator: Operator, agency_id: str) -> tuple[str, str]:
    """Partition and offset of an agency's first waiting record, as `muster parked show` shows them."""
    query = "select kafka_partition || '@' || kafka_offset from parked_event where agency_id = $1"
    partition, _, offset = (await operator.sql("notify", query, agency_id)).partition("@")
    return partition, offset


async def names_of_drills(postgres: str, kafka_bootstrap: str) -> set[str]:
    """Databases and topics with names like those that a drill creates."""
    connection = await asyncpg.connect(postgres)
    databases = await connection.fetch(
        "select datname from pg_database where datname like 'test\\_probe\\_%' or datname = $1",
        f"template_probe_{_fingerprint(SCHEMA.migrations)}",
    )
    await connection.close()
    async with connect(kafka_at(kafka_bootstrap)) as admin:
        theirs = [name for name in await admin.list_topics() if name.startswith("faults-")]
    return {*theirs, *(row["datname"] for row in databases)}


def accept_gap_alone(operator: Operator, service: str, agency_id: str, waiting: int) -> None:
    """Fix the cause of a parked stream, without a replay."""
    httpx.post(
        f"{operator.stack.service_url(service)}/v1/streams/{TOPIC}/{agency_id}/gap",
        json={"waiting": waiting, "reason": "gone"},
        headers={"authorization": f"Bearer {operator.stack.token(f'{service}:operate')}"},
    ).raise_for_status()

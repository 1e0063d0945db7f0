"""What the tests of the consumer look at: the effects of a stream of seats, and whether it is parked."""

from collections.abc import Awaitable
from datetime import datetime
from typing import Any

from muster_contracts import Envelope, Event
from muster_contracts.testing import record
from muster_runtime.messaging.record_reader import Record
from tests.support.services import RunningService

TOPIC = "muster.entitlements.seat"


async def effects(probe: RunningService, agency_id: str) -> list[str]:
    rows = await probe.admin.fetch("select seat_id from effect where agency_id = $1 order by id", agency_id)
    return [row["seat_id"] for row in rows]


async def parked(probe: RunningService, agency_id: str) -> str | None:
    reason: str | None = await probe.admin.fetchval("select reason from parked_stream where agency_id = $1", agency_id)
    return reason


async def last_sequence(probe: RunningService, agency_id: str) -> int | None:
    number: int | None = await probe.admin.fetchval("select last_sequence from applied where agency_id = $1", agency_id)
    return number


async def readiness(probe: RunningService) -> list[str]:
    reasons: list[str] = (await probe.client.get("/health/ready")).json()["reasons"]
    return reasons


def consumed(event: Event, sequence: int, time: datetime) -> Record:
    """An event as the consumer reads it, at the offset of its sequence."""
    made = record(event, sequence=sequence, time=time)
    return Record(made.topic, event.agency_id, 0, sequence, made.key, made.value, made.headers)


def at(envelope: Envelope, sequence: int) -> Envelope:
    return envelope._replace(sequence=sequence, id=f"{envelope.id}-{sequence}")


async def holds(answer: Awaitable[Any], expected: Any) -> bool:
    """Fail unless the answer is the expected one; for use with `eventually`."""
    assert await answer == expected
    return True


async def waiting(probe: RunningService) -> int:
    count: int = await probe.admin.fetchval("select count(*) from parked_event")
    return count

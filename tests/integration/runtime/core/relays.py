"""What the tests of the relay do with the probe: write events, and relay them for a while."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx

from muster_contracts.entitlements import SeatAssigned
from muster_local.servers import kafka_at
from muster_runtime.database.wakeup import WakeupListener
from muster_runtime.messaging.backlog import Backlog
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.kafka_topics import TopicFaults
from muster_runtime.messaging.producers import partition_of
from muster_runtime.messaging.relay import Relay
from muster_runtime.scheduling import hold
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.services import PARTITIONS, RunningService


def seat(agency_id: str, seat_id: str) -> SeatAssigned:
    return SeatAssigned(agency_id=agency_id, seat_id=seat_id, subject_ref="sub_1")


async def write(probe: RunningService, agency_id: str, *seat_ids: str) -> None:
    async with probe.runtime.database.write(agency_id, context=CONTEXT) as uow:
        for seat_id in seat_ids:
            uow.publish(seat(agency_id, seat_id))


async def burst(probe: RunningService, agency_id: str, events: int) -> None:
    """Put this many events of an agency into the outbox, in one transaction."""
    payloads = [
        b'{"agency_id":"%b","seat_id":"%032x","subject_ref":"sub_%032x"}'
        % (agency_id.encode(), secrets.randbits(128), secrets.randbits(128))  # random like ids: hardly compressible
        for _ in range(events)
    ]
    async with probe.runtime.database.write(agency_id, context=CONTEXT) as uow:
        uow.publish_encoded(SeatAssigned, agency_id, payloads)


def partition(agency_id: str) -> int:
    """The partition of an agency's events."""
    return partition_of(agency_id.encode(), PARTITIONS)


async def outbox_is_empty(probe: RunningService) -> bool:
    rows: int = await probe.admin.fetchval("select count(*) from outbox")
    return rows == 0


async def relay_all(probe: RunningService, timeout: float = 15.0) -> None:
    """Run a relay of the probe until its outbox is empty."""
    async with relaying(probe):
        await eventually(lambda: outbox_is_empty(probe), timeout=timeout)


async def lose_commits(probe: RunningService) -> None:
    """As if the last transactions of NASA and DOE had never happened."""
    await probe.admin.execute("update stream set last_sequence = 1 where agency_id = 'NASA'")
    await probe.admin.execute("delete from stream where agency_id = 'DOE'")


async def publish_and_lose(probe: RunningService) -> None:
    """Publish two events of NASA, of which the database then lacks the second."""
    await write(probe, "NASA", "one", "two")
    await relay_all(probe)
    await lose_commits(probe)


async def release_deadlines(probe: RunningService) -> httpx.Response:
    """Ask for the release of the held deadlines."""
    return await probe.client.post("/v1/deadlines/release", json={"reason": "all was repeated"})


async def are_released(probe: RunningService) -> bool:
    """Release the deadlines once every lane of the relay has compared."""
    return (await release_deadlines(probe)).status_code == 200


@asynccontextmanager
async def relaying(
    probe: RunningService,
    holder: str = "the same name",
    faults: Callable[[], TopicFaults] = TopicFaults,
    kafka: KafkaConnection | None = None,
) -> AsyncIterator[Relay]:
    """Run a relay of the probe until the block ends; `kafka` replaces the probe's."""
    settings = probe.runtime.settings
    relay = Relay(
        probe.runtime.database,
        WakeupListener("", "probe", probe.clock).wakeup,
        service="probe",
        holder=holder,
        kafka=kafka or kafka_at(settings.kafka_bootstrap),
        topics=dict.fromkeys(probe.runtime.service.produces, PARTITIONS),
        topic_prefix=settings.topic_prefix,
        backlog=Backlog(1_000_000),
        on_restored=lambda: hold.begin_for_lost_commits(probe.runtime.database, probe.clock, "probe"),
        faults=faults,
    )
    task = asyncio.create_task(relay.run())
    yield relay
    while not task.done():  # Kafka's client may swallow a cancellation
        task.cancel()
        await asyncio.wait([task], timeout=1)

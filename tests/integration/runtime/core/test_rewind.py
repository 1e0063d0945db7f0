"""An operator lets a service read its topics from their beginning."""

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient

from muster_contracts.entitlements import SeatAssigned
from muster_runtime.process.roles import Role
from muster_runtime.settings import Settings
from tests.integration.runtime.core.probe.service import build
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner

TOPIC = "muster.entitlements.seat"
WHY = {"reason": "the backup of Monday lacks them"}
REWIND = "RewindConsumer"


def seat(agency_id: str, seat_id: str) -> SeatAssigned:
    return SeatAssigned(agency_id=agency_id, seat_id=seat_id, subject_ref="sub_1")


async def seats(probe: RunningService, agency_id: str) -> list[str]:
    rows = await probe.admin.fetch("select seat_id from effect where agency_id = $1 order by id", agency_id)
    return [row["seat_id"] for row in rows]


async def test_after_a_rewind_a_new_consumer_reads_what_the_group_had_read(run_service: ServiceRunner) -> None:
    probe = await run_service(build, Settings, roles=frozenset({Role.OPERATIONS}))
    await probe.publish(seat("DOE", "a"), seat("NASA", "b"))
    await pass_over_all(probe)
    reply = await probe.client.post("/v1/rewind", json=WHY)
    assert (reply.status_code, reply.json()) == (200, {"topics": [TOPIC]}), reply.text
    await run_service(build, Settings, beside=probe)

    async def read() -> bool:
        return (await seats(probe, "DOE"), await seats(probe, "NASA")) == (["a"], ["b"])

    await eventually(read)
    row = await probe.admin.fetchrow("select agency_id, actor, reason, after from audit where command = $1", REWIND)
    assert tuple(row or ()) == ("*", "operator", WHY["reason"], f'{{"topics": ["{TOPIC}"]}}')


async def test_a_rewind_that_cannot_be_recorded_leaves_the_group_where_it_is(run_service: ServiceRunner) -> None:
    probe = await run_service(build, Settings, roles=frozenset({Role.OPERATIONS}))
    await probe.publish(seat("DOE", "a"), seat("NASA", "b"))
    await pass_over_all(probe)
    refused = await probe.client.post("/v1/rewind", json={"reason": "no text\u0000"})
    assert refused.status_code == 422, refused.text
    assert await committed(probe) == 2


async def committed(probe: RunningService) -> int:
    """How many records the group has read, according to Kafka."""
    settings = probe.runtime.settings
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(settings.topic_prefix + "probe")
    finally:
        await admin.close()
    return sum(offset.offset for offset in offsets.values())


async def pass_over_all(probe: RunningService) -> None:
    """Make Kafka believe that the probe's group has read everything on its topic."""
    settings = probe.runtime.settings
    group = AIOKafkaConsumer(
        settings.topic_prefix + TOPIC,
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=settings.topic_prefix + "probe",
        enable_auto_commit=False,
    )
    async with group:
        await group.seek_to_end()
        ends = {partition: await group.position(partition) for partition in group.assignment()}
        assert sum(ends.values()) == 2
        await group.commit(ends)


async def test_a_rewind_is_refused_while_a_process_consumes(probe: RunningService) -> None:
    await eventually(lambda: consumes(probe))
    refused = await probe.client.post("/v1/rewind", json=WHY)
    assert refused.status_code == 409, refused.text
    assert "a process of probe is still consuming" in refused.json()["detail"]
    assert await probe.admin.fetchval("select count(*) from audit") == 0
    assert (await probe.client.post("/v1/rewind", json={})).status_code == 422


async def consumes(probe: RunningService) -> bool:
    consumer = probe.process.consumer
    return consumer is not None and consumer.assigned.is_set()

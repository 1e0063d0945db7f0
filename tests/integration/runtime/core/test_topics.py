"""Topics that are missing or differ from their contract: readiness reports them, and no event is lost."""

import asyncio
import re
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from muster_contracts import topics
from muster_contracts.entitlements import EntitlementsAuditSealed, PersonRecorded, SeatAssigned
from muster_contracts.testing import build as example
from muster_local.servers import kafka_at
from muster_operator.topics import connect, create_topics, delete_topics
from muster_runtime.messaging.kafka_topics import TopicFaults
from muster_runtime.process.roles import Role
from muster_runtime.process.running import running
from muster_runtime.process.start_checks import StartRefused
from muster_runtime.service import Service
from muster_runtime.settings import Settings
from tests.integration.runtime.core.conftest import ProbeStarter
from tests.integration.runtime.core.looks import not_ready, parked_streams, ready, seat
from tests.integration.runtime.core.probe.service import build
from tests.integration.runtime.core.relays import outbox_is_empty, relaying, write
from tests.integration.runtime.core.test_offsets import have, kept
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.services import PARTITIONS, RunningService, ServiceRunner
from tests.support.topics import Reader

TOPIC = "muster.entitlements.seat"
DIRECTORY = "muster.entitlements.directory"
AUDIT = EntitlementsAuditSealed.topic


async def test_readiness_reports_a_missing_topic(probe: RunningService) -> None:
    await eventually(lambda: ready(probe))
    await delete_topics(kafka_at(probe.runtime.settings.kafka_bootstrap), [probe.topic_prefix + TOPIC])
    await eventually(lambda: not_ready(probe, f"the topic {probe.topic_prefix}{TOPIC} is missing"))


async def add_a_partition(probe: RunningService) -> None:
    """Add one, and wait until the broker reports it: the controller answers earlier."""
    name = probe.topic_prefix + TOPIC
    async with connect(kafka_at(probe.runtime.settings.kafka_bootstrap)) as admin:
        await admin.create_partitions({name: NewPartitions(PARTITIONS + 1)})

        async def told() -> bool:
            (topic,) = await admin.describe_topics([name])
            return len(topic["partitions"]) == PARTITIONS + 1

        await eventually(told)


async def test_readiness_reports_added_partitions(probe: RunningService) -> None:
    await add_a_partition(probe)
    await eventually(lambda: not_ready(probe, f"has {PARTITIONS + 1} partitions and needs {PARTITIONS}"))


async def test_nothing_is_published_to_a_topic_with_added_partitions_not_even_after_a_restart(
    run_service: ServiceRunner,
) -> None:
    """The other topic's events flow."""
    idle = await run_service(build_with_audit, Settings, roles=frozenset())
    await add_a_partition(idle)
    service = await run_service(build_with_audit, Settings, roles=frozenset({Role.RELAY}), beside=idle)
    await publish_to_both(service)
    why = f"has {PARTITIONS + 1} partitions and needs {PARTITIONS}"
    await eventually(
        lambda: not_ready(service, f"the relay cannot publish: the topic {service.topic_prefix}{TOPIC} {why}")
    )
    await eventually(lambda: outbox_holds(service, [TOPIC]))
    assert len(await service.published(EntitlementsAuditSealed)) == 1
    assert await service.published(SeatAssigned) == []


async def test_events_of_a_missing_topic_wait_until_it_is_back_and_those_of_others_do_not(
    run_service: ServiceRunner,
) -> None:
    service = await run_service(build_with_audit, Settings, roles=frozenset({Role.RELAY}))
    await publish_to_both(service)
    await eventually(lambda: outbox_holds(service, []))
    kafka, name = kafka_at(service.runtime.settings.kafka_bootstrap), service.topic_prefix + AUDIT
    await delete_topics(kafka, [name])
    await eventually(lambda: not_ready(service, f"the relay cannot publish: the topic {name} is missing"))
    await publish_to_both(service)
    await eventually(lambda: outbox_holds(service, [AUDIT]))
    async with Reader(kafka, service.topic_prefix, [TOPIC]) as reader:  # the service's own asks for both topics
        assert len(await reader.events(SeatAssigned)) == 2

    await create_topics(kafka, service.topic_prefix, [topics()[AUDIT]], partitions=PARTITIONS)
    await eventually(lambda: ready(service))
    await eventually(lambda: outbox_holds(service, []))
    async with Reader(kafka, service.topic_prefix, [AUDIT]) as reader:  # the service's own reads the earlier topic
        assert len(await reader.events(EntitlementsAuditSealed)) == 1


async def test_a_relay_that_opens_a_client_while_a_topic_is_missing_publishes_to_the_others(
    run_service: ServiceRunner,
) -> None:
    service = await run_service(build_with_audit, Settings, roles=frozenset())
    name = service.topic_prefix + AUDIT
    await delete_topics(kafka_at(service.runtime.settings.kafka_bootstrap), [name])
    await publish_to_both(service)
    async with relaying(service, faults=lambda: TopicFaults(missing=[name])):
        await eventually(lambda: outbox_holds(service, [AUDIT]))


def build_with_audit(settings: Settings) -> Service:
    """The probe as a service that owns two topics of facts."""
    return replace(build(settings), produces=[TOPIC, AUDIT])


async def publish_to_both(service: RunningService) -> None:
    """Publish an event to each of the two topics of facts."""
    async with service.runtime.database.write("NASA", context=CONTEXT) as uow:
        uow.publish(example(EntitlementsAuditSealed, agency_id="NASA"))
        uow.publish(seat("NASA", "a"))
        uow.wake()


async def test_nothing_is_applied_from_a_topic_with_added_partitions_not_even_after_a_restart(
    idle_probe: RunningService, run_service: ServiceRunner
) -> None:
    await add_a_partition(idle_probe)
    probe = await run_service(build, Settings, roles=frozenset({Role.CONSUMER}), beside=idle_probe)
    await probe.publish(seat("NASA", "a"), seat("DOE", "a"))
    why = f"has {PARTITIONS + 1} partitions and needs {PARTITIONS}"
    await eventually(lambda: not_ready(probe, f"reading waits: the topic {probe.topic_prefix}{TOPIC} {why}"))
    assert await probe.admin.fetchval("select count(*) from effect") == 0
    assert await parked_streams(probe) == set()


async def set_otherwise(service: RunningService, topic: str, setting: str, value: str) -> None:
    """Configure a topic as an administrator might have."""
    async with connect(kafka_at(service.runtime.settings.kafka_bootstrap)) as admin:
        name = service.topic_prefix + topic
        configs = {**topics()[topic].settings, setting: value}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=configs)])


async def test_readiness_reports_a_topic_that_would_lose_events(probe: RunningService) -> None:
    await eventually(lambda: ready(probe))
    await set_otherwise(probe, TOPIC, "retention.ms", "1000")
    await eventually(lambda: not_ready(probe, "has retention.ms=1000 and needs -1"))


def build_with_directory(settings: Settings) -> Service:
    """The probe as a service that owns a compacted topic as well."""
    return replace(build(settings), produces=[TOPIC, DIRECTORY])


@pytest.mark.parametrize(
    ("topic", "setting", "value", "needed"),
    [
        (TOPIC, "retention.ms", "1000", "-1"),
        (TOPIC, "retention.bytes", "1000000", "-1"),
        (TOPIC, "unclean.leader.election.enable", "true", "false"),
        (DIRECTORY, "delete.retention.ms", "86400000", "157766400000"),
        (DIRECTORY, "cleanup.policy", "delete", "compact"),
    ],
)
async def test_a_topic_that_would_lose_events_is_refused_at_the_start_and_reported_later(
    run_service: ServiceRunner, topic: str, setting: str, value: str, needed: str
) -> None:
    service = await run_service(build_with_directory, Settings, roles=frozenset({Role.RELAY}))
    await eventually(lambda: ready(service))
    await set_otherwise(service, topic, setting, value)
    fault = f"{service.topic_prefix}{topic} has {setting}={value} and needs {needed}"
    await eventually(lambda: not_ready(service, f"events would be lost: {fault}"))
    with pytest.raises(StartRefused, match=re.escape(fault)):
        async with running(build_with_directory(service.runtime.settings), frozenset({Role.RELAY})):
            pass


async def test_nothing_is_published_to_a_topic_that_would_lose_it_until_it_is_set_back(
    run_service: ServiceRunner,
) -> None:
    """The other topics' events flow; commands continue."""
    service = await run_service(build_with_directory, Settings, roles=frozenset({Role.RELAY}))
    await eventually(lambda: ready(service))
    await set_otherwise(service, TOPIC, "unclean.leader.election.enable", "true")
    name = f"{service.topic_prefix}{TOPIC}"
    await eventually(lambda: not_ready(service, f"the relay cannot publish: {name} would lose events"))
    async with service.runtime.database.write("NASA", context=CONTEXT) as uow:
        uow.publish(seat("NASA", "a"))
        uow.publish(example(PersonRecorded, agency_id="NASA"))
        uow.wake()
    await eventually(lambda: outbox_holds(service, [TOPIC]))
    assert len(await service.published(PersonRecorded)) == 1
    assert await service.published(SeatAssigned) == []

    await set_otherwise(service, TOPIC, "unclean.leader.election.enable", "false")
    await eventually(lambda: ready(service))
    await eventually(lambda: outbox_holds(service, []))
    assert len(await service.published(SeatAssigned)) == 1


async def outbox_holds(service: RunningService, expected: list[str]) -> bool:
    assert [row["topic"] for row in await service.admin.fetch("select topic from outbox order by id")] == expected
    return True


BEFORE = ("a", "b", "c", "d", "e")
AFTER = ("f", "g", "h", "i", "j", "k", "l")


async def make_again(probe: RunningService) -> None:
    """Delete the topic of seats, and recreate it under the same name."""
    kafka, name = kafka_at(probe.runtime.settings.kafka_bootstrap), probe.topic_prefix + TOPIC

    async with AIOKafkaConsumer(**kafka.options(), metadata_max_age_ms=100) as anyone:

        async def is_there(expected: bool) -> bool:
            return (name in await anyone.topics()) is expected

        await delete_topics(kafka, [name])
        await eventually(lambda: is_there(False))
        await create_topics(kafka, probe.topic_prefix, [topics()[TOPIC]], partitions=PARTITIONS)
        await eventually(lambda: is_there(True))


async def applied(process: asyncio.subprocess.Process, probe: RunningService) -> None:
    """A process has applied what was published first."""
    await eventually(lambda: have(probe, "NASA", *BEFORE), timeout=40)
    await eventually(lambda: kept(probe, len(BEFORE)))
    assert process.returncode is None


async def test_a_consumer_ends_when_its_topic_was_recreated_and_the_next_one_reads_all_of_it(
    idle_probe: RunningService, probe_process: ProbeStarter
) -> None:
    await write(idle_probe, "NASA", *BEFORE)
    process = await probe_process("relay", "consumer")
    await applied(process, idle_probe)
    await make_again(idle_probe)
    await write(idle_probe, "NASA", *AFTER)
    async with asyncio.timeout(60):
        assert await process.wait() == 1
    await probe_process("relay", "consumer")
    await eventually(lambda: have(idle_probe, "NASA", *BEFORE, *AFTER), timeout=40)


async def test_a_topic_that_was_recreated_between_two_processes_is_read_from_its_beginning(
    idle_probe: RunningService, probe_process: ProbeStarter
) -> None:
    """It has more records than were read from the earlier topic."""
    await write(idle_probe, "NASA", *BEFORE)
    process = await probe_process("relay", "consumer")
    await applied(process, idle_probe)
    process.kill()
    await process.wait()
    await make_again(idle_probe)
    await write(idle_probe, "NASA", *AFTER)
    await probe_process("relay")
    await eventually(lambda: outbox_is_empty(idle_probe), timeout=40)
    await probe_process("consumer")
    await eventually(lambda: have(idle_probe, "NASA", *BEFORE, *AFTER), timeout=40)
    assert not await parked_streams(idle_probe)

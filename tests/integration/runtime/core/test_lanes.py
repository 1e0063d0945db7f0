"""The relay's lanes share what they find: if one finds that commits are lost, none of them publishes."""

import secrets
from collections.abc import Collection

import pytest
from confluent_kafka.admin import NewTopic
from pydantic import SecretStr

from muster_contracts.entitlements import PersonRecorded, SeatAssigned
from muster_operator.access.acls import Acl, Kind, Operation
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.relay import Relay
from muster_runtime.scheduling import hold
from muster_runtime.settings import Settings
from tests.integration.runtime.core.relays import (
    lose_commits,
    outbox_is_empty,
    publish_and_lose,
    relay_all,
    relaying,
    write,
)
from tests.integration.runtime.core.test_restore_guard import raise_epoch
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.failover import fail_over
from tests.support.secured_kafka import SecuredKafka
from tests.support.services import PARTITIONS, RunningService


async def test_no_lane_publishes_while_the_topics_of_another_show_lost_commits(idle_probe: RunningService) -> None:
    await publish_and_lose(idle_probe)
    await write_person(idle_probe)
    async with relaying(idle_probe) as relay:
        await eventually(lambda: all_refuse(relay))
        assert (relay.held or "").count("it was restored") == 1
        assert not await outbox_is_empty(idle_probe)
    assert await idle_probe.published(PersonRecorded) == []

    await raise_epoch(idle_probe)
    await relay_all(idle_probe)
    (person,) = await idle_probe.published(PersonRecorded)
    assert person.envelope.epoch == 2


async def test_a_lane_that_publishes_stops_once_another_finds_lost_commits(idle_probe: RunningService) -> None:
    """As when a partition that had no leader shows the loss."""
    await write(idle_probe, "NASA", "one", "two")
    await write_person(idle_probe)
    async with relaying(idle_probe) as relay:
        await eventually(lambda: outbox_is_empty(idle_probe))
        await lose_commits(idle_probe)
        facts = relay._lanes[0]
        facts._flight.regained = True
        facts._wakeup.wake()
        await eventually(lambda: all_refuse(relay))
        await write_person(idle_probe)
        assert relay.held is not None
    assert len(await idle_probe.published(PersonRecorded)) == 1


@pytest.mark.parametrize("denied", [{Operation.READ, Operation.WRITE}, {Operation.READ}], ids=["all", "read"])
async def test_a_lane_publishes_though_kafka_denies_the_topics_of_another(
    idle_probe: RunningService, secured: SecuredKafka, denied: Collection[Operation]
) -> None:
    """The other lane waits, and notes no comparison."""
    prefix = idle_probe.topic_prefix
    seats, people = prefix + SeatAssigned.topic, prefix + PersonRecorded.topic
    administrator = secured.administrator()
    created = administrator.client.create_topics([NewTopic(name, PARTITIONS, 1) for name in (seats, people)])
    for future in created.values():
        await administrator.ask(future)
    principal = f"User:{prefix}probe"
    fence = Acl(principal, Kind.TRANSACTIONAL_ID, prefix, Operation.WRITE, prefixed=True)
    read_and_write = (Operation.READ, Operation.WRITE)
    await administrator.add(
        [fence, *(Acl(principal, Kind.TOPIC, name, each) for name in (seats, people) for each in read_and_write)]
    )
    kafka = await login(secured, f"{prefix}probe")
    await write_to_both_lanes(idle_probe)
    async with relaying(idle_probe, kafka=kafka):
        await eventually(lambda: outbox_is_empty(idle_probe))

    taken = [Acl(principal, Kind.TOPIC, people, each) for each in denied]
    await administrator.remove(taken)
    await write_to_both_lanes(idle_probe)
    await fail_over(idle_probe.admin)
    async with relaying(idle_probe, kafka=kafka) as relay:
        await eventually(lambda: only_waits(idle_probe, PersonRecorded.topic))
        await eventually(lambda: says(relay, f"Kafka denies access to the topic {people}"))
        assert await hold.are_facts_in_doubt(idle_probe.admin)

        await administrator.add(taken)
        await eventually(lambda: outbox_is_empty(idle_probe))
        assert not await hold.are_facts_in_doubt(idle_probe.admin)


async def login(secured: SecuredKafka, username: str) -> KafkaConnection:
    """The connection of a new user to the secured Kafka."""
    password = secrets.token_hex(16)
    await secured.administrator().set_password(username, password)
    settings = Settings(
        kafka_bootstrap=secured.bootstrap,
        kafka_security_protocol="SASL_SSL",
        kafka_ca_file=str(secured.authority.certificate),
        kafka_username=SecretStr(username),
        kafka_password=SecretStr(password),
    )
    return KafkaConnection(settings)


async def write_to_both_lanes(probe: RunningService) -> None:
    await write(probe, "NASA", "one")
    await write_person(probe)


async def only_waits(probe: RunningService, topic: str) -> bool:
    """Whether events of this topic wait in the outbox, and no others."""
    rows = await probe.admin.fetch("select distinct topic from outbox")
    return [row["topic"] for row in rows] == [topic]


async def says(relay: Relay, reason: str) -> bool:
    return reason in (relay.held or "")


async def write_person(probe: RunningService) -> None:
    """An event on a compacted topic."""
    async with probe.runtime.database.write("NASA", context=CONTEXT) as uow:
        uow.publish(PersonRecorded(agency_id="NASA", subject_ref="sub_1", name="Ada", email="ada@nasa.gov"))


async def all_refuse(relay: Relay) -> bool:
    return all("it was restored" in "".join(lane.held) for lane in relay._lanes)

"""Three brokers of one cluster: fewer than the minimum are in sync; the only one that clients know dies."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaError

from muster_local.servers import kafka_at
from muster_operator.topics import connect
from tests.faults import servers
from tests.faults.field import Field
from tests.faults.findings import Findings
from tests.faults.readiness import readiness_reason
from tests.faults.servers import Server
from tests.support.eventually import eventually
from tests.support.services import TokenIssuer

BROKERS = 3

# Commands that are answered while two brokers are down.
HELD_COMMANDS = 1_500

# How long clients may take to find the brokers that are up, and to do what has waited.
REBOOTSTRAP_SECONDS = 10


@pytest.fixture(scope="module")
def _brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    controller, brokers = servers.kafka_cluster(tmp_path_factory.mktemp("brokers"), BROKERS)
    controller.start()
    yield brokers
    for node in (*brokers, controller):
        node.kill()


@pytest.fixture
async def brokers(_brokers: list[Server]) -> list[Server]:
    """Three brokers of one cluster, all of them up."""
    await up(*_brokers)
    return _brokers


@pytest.fixture
async def cluster(
    tmp_path: Path,
    postgres_server: Server,
    brokers: list[Server],
    topic_prefix: str,
    tokens: TokenIssuer,
    seed: int,
) -> AsyncIterator[Field]:
    """The probe's field on the three brokers: three replicas of each partition, two of which must be in sync."""
    bootstrap = ",".join(broker.address for broker in brokers)
    async with Field(tmp_path, postgres_server.address, kafka_at(bootstrap), topic_prefix, tokens, seed) as field:
        yield field


async def up(*brokers: Server) -> None:
    """Start the brokers that do not run, in parallel."""
    for broker in brokers:
        if not broker.runs:
            broker.start()
    for broker in brokers:
        await broker.up()


async def stop(*brokers: Server) -> None:
    """Stop brokers one after another, as an upgrade does: each hands its partitions over before it ends."""
    for broker in brokers:
        await asyncio.to_thread(broker.stop)


async def every_partition(broker: Server, holds: Callable[[Any], bool]) -> bool:
    """Whether something holds for every partition, as a broker describes it."""
    try:
        async with connect(kafka_at(broker.address)) as admin:
            return all(holds(part) for topic in await admin.describe_topics() for part in topic["partitions"])
    except KafkaError:
        return False


async def outbox(field: Field) -> tuple[int, int]:
    """The first run in the outbox, and how many there are."""
    row = await field.admin.fetchrow("select min(id), count(*) from outbox")
    assert row is not None
    return row[0], row[1]


async def test_34_below_the_minimum_of_in_sync_replicas_the_outbox_holds(
    cluster: Field, brokers: list[Server], findings: Findings
) -> None:
    api = await cluster.serve("relay", "consumer")
    await cluster.traffic(10)
    await cluster.at_rest()
    async with cluster.live_traffic():
        await eventually(cluster.has_backlog)
        await stop(*brokers[1:])
    reason = await eventually(lambda: readiness_reason(api, "does not acknowledge"), timeout=60)
    before = len(cluster.recorder.commands())
    first, waiting = await outbox(cluster)
    await cluster.traffic(HELD_COMMANDS)
    held = cluster.recorder.commands()[before:]
    assert [command.ending for command in held] == ["answered"] * HELD_COMMANDS
    first_now, waiting_now = await outbox(cluster)
    assert first_now == first
    assert waiting_now >= waiting + HELD_COMMANDS  # the consumer answers what was published before
    seats = [seat_id for command in held for seat_id in command.seat_ids]
    assert not await cluster.admin.fetchval("select count(*) from effect where seat_id = any($1)", seats)
    await up(*brokers)
    findings.fault_is_over()
    await cluster.at_rest(timeout=90)
    findings.recovered(f"{waiting + HELD_COMMANDS} runs waited; readiness said: {reason.replace(cluster.prefix, '')}")
    await cluster.ready(api)
    assert await cluster.differences() == []


async def test_35_clients_that_know_only_a_dead_broker_return_to_the_bootstrap_list(
    cluster: Field, brokers: list[Server], findings: Findings
) -> None:
    relay = await cluster.serve("relay")
    consumer = cluster.start("consumer")
    await cluster.ready(consumer)
    await cluster.traffic(10)
    await cluster.at_rest()
    *others, last = brokers
    await stop(*others)
    await up(*others)
    await eventually(lambda: every_partition(last, lambda partition: len(partition["isr"]) == BROKERS), timeout=60)
    last.kill()
    await eventually(lambda: every_partition(others[0], lambda partition: partition["leader"] in (1, 2)), timeout=60)
    for process in (relay, consumer):
        assert process.logged("Unable to update metadata from [3]"), "no client knew only the dead broker"
    findings.fault_is_over()
    await cluster.traffic(10)
    await cluster.at_rest(timeout=REBOOTSTRAP_SECONDS)
    await cluster.ready(relay, consumer, timeout=REBOOTSTRAP_SECONDS)
    findings.recovered("the relay, the consumer and readiness found the brokers that were up")
    assert await cluster.differences() == []

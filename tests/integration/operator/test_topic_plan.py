"""`muster topics`: what differs is named, what is safe is corrected, and the rest is left alone."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from typer.testing import CliRunner

from muster_contracts import ClockMoved, topics
from muster_contracts.topics import MIN_IN_SYNC
from muster_local.servers import kafka_at
from muster_operator.cli import app
from muster_operator.failures import Refused
from muster_operator.preflight.findings import Status
from muster_operator.preflight.kafka import check_cluster
from muster_operator.target import Target
from muster_operator.topic_plan import Difference, Remedy, apply, plan, read_cluster
from muster_operator.topics import connect, create_topics, delete_topics
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.kafka_topics import KafkaTopics
from muster_runtime.settings import Settings
from tests.faults.servers import kafka_quorum
from tests.support.eventually import eventually

T = TypeVar("T")

SEAT = "muster.entitlements.seat"
TERM = "muster.billing.term"
CLOCK = ClockMoved.topic


@pytest.fixture
async def prefix(kafka_bootstrap: str, topic_prefix: str) -> AsyncIterator[str]:
    yield topic_prefix
    await delete_topics(kafka_at(kafka_bootstrap), [topic_prefix + name for name in (*topics(), "muster.old.thing")])


async def test_apply_makes_a_cluster_as_described_and_leaves_what_is_not_its_to_change(
    kafka_bootstrap: str, prefix: str
) -> None:
    async with connect(kafka_at(kafka_bootstrap)) as admin:
        odd = [
            NewTopic(prefix + SEAT, 3, 1, topic_configs={"retention.ms": "1000", "max.message.bytes": "2000000"}),
            NewTopic(f"{prefix}muster.old.thing", 1, 1),
        ]
        await admin.create_topics(odd)

        async def all_there() -> bool:
            return {topic.name for topic in odd} <= set(await admin.list_topics())

        await eventually(all_there)
        found = await plan(kafka_at(kafka_bootstrap), prefix)
        wrong = {(d.topic.removeprefix(prefix), d.remedy) for d in found}
        assert (SEAT, Remedy.ALTER) in wrong
        assert (SEAT, Remedy.NONE) in wrong
        assert ("muster.old.thing", Remedy.OTHERS) in wrong
        assert {topic for topic, remedy in wrong if remedy is Remedy.CREATE} == topics().keys() - {SEAT, CLOCK}

        left = await apply(kafka_at(kafka_bootstrap), prefix)

        assert {d.topic.removeprefix(prefix) for d in left} == {SEAT, "muster.old.thing"}

        async def nothing_else_differs() -> bool:
            return await plan(kafka_at(kafka_bootstrap), prefix) == left

        await eventually(nothing_else_differs)
        described = {topic["topic"]: topic for topic in await admin.describe_topics([prefix + SEAT])}
        assert len(described[prefix + SEAT]["partitions"]) == 3


async def test_a_topic_that_has_grown_is_named(kafka_bootstrap: str, prefix: str) -> None:
    await create_topics(kafka_at(kafka_bootstrap), prefix, topics().values())

    async def nothing_differs() -> bool:
        return await plan(kafka_at(kafka_bootstrap), prefix) == []

    await eventually(nothing_differs)
    async with connect(kafka_at(kafka_bootstrap)) as admin:
        await admin.create_partitions({prefix + SEAT: NewPartitions(13)})

    async def named() -> list[Difference]:
        return [d for d in await plan(kafka_at(kafka_bootstrap), prefix) if "13 partitions, not 12" in d.what]

    await eventually(named)


@pytest.fixture
async def three_brokers(tmp_path: Path) -> AsyncIterator[str]:
    brokers = kafka_quorum(tmp_path, 3)
    try:
        for broker in brokers:
            broker.start()
        for broker in brokers:
            await broker.up()
        yield ",".join(broker.address for broker in brokers)
    finally:
        for broker in brokers:
            broker.kill()


async def test_with_three_brokers_an_acknowledged_event_is_on_two(
    three_brokers: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    single = NewTopic(SEAT, 12, 1, topic_configs=topics()[SEAT].settings)
    careless = NewTopic(TERM, 12, 3, topic_configs={**topics()[TERM].settings, MIN_IN_SYNC: "1"})
    async with connect(kafka_at(three_brokers)) as admin:

        async def all_know_of_each_other() -> bool:
            return len((await admin.describe_cluster())["brokers"]) == 3

        await eventually(all_know_of_each_other)
        await admin.create_topics([single, careless])

        async def both_named() -> bool:
            found = {
                (d.topic, d.what.partition(";")[0], d.remedy) for d in await settled(plan(kafka_at(three_brokers), ""))
            }
            return found >= {
                (SEAT, "copies: 1, not 3", Remedy.NONE),
                (TERM, f"{MIN_IN_SYNC}=1, not 2", Remedy.ALTER),
            }

        await eventually(both_named)
        settings = Settings(environment="sandbox", kafka_bootstrap=three_brokers)
        faults = KafkaTopics(KafkaConnection(settings), settings, "billing", [TERM])
        await faults.start()
        assert (await faults.look()).losses == [f"{TERM} has {MIN_IN_SYNC}=1 with 3 copies and needs 2"]
        await faults.stop()

        monkeypatch.setenv("MUSTER_KAFKA_BOOTSTRAP", three_brokers)
        arguments = ["topics", "apply", "--home", str(tmp_path / "home")]
        applied = await asyncio.to_thread(CliRunner().invoke, app, arguments)
        assert (applied.exit_code, "copies: 1, not 3" in applied.output) == (1, True), applied.exception

        async def nothing_else_differs() -> bool:
            left = await settled(plan(kafka_at(three_brokers), ""))
            assert [(d.topic, d.remedy) for d in left] == [(SEAT, Remedy.NONE)]
            return "kafka-reassign-partitions" in left[0].what

        await eventually(nothing_else_differs)

        async def kept_on_two() -> bool:
            live = await settled(read_cluster(admin, ""))
            kept = {name: (topic.replicas, topic.settings.get(MIN_IN_SYNC)) for name, topic in live.items()}
            assert kept == {**dict.fromkeys(topics().keys() - {CLOCK}, (3, "2")), SEAT: (1, None)}
            return True

        await eventually(kept_on_two)

        # Other programs use Kafka's own topics too: what is wrong with them is reported, and not changed.
        reader = AIOKafkaConsumer(SEAT, bootstrap_servers=three_brokers, group_id="some-program")
        await reader.start()
        await reader.commit({TopicPartition(SEAT, 0): 0})
        await reader.stop()
        careless_group = {MIN_IN_SYNC: "1", "unclean.leader.election.enable": "true"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, "__consumer_offsets", careless_group)])

        async def named_as_a_persons_to_change() -> bool:
            found = await settled(plan(kafka_at(three_brokers), ""))
            assert [(d.what, d.remedy) for d in found if d.topic == "__consumer_offsets"] == [
                (f"{MIN_IN_SYNC}=1, not 2; use kafka-configs.sh", Remedy.PERSON),
                ("unclean.leader.election.enable=true, not false; use kafka-configs.sh", Remedy.PERSON),
            ]
            return True

        await eventually(named_as_a_persons_to_change)
        left = await settled(apply(kafka_at(three_brokers), ""))
        assert {d.topic for d in left} == {SEAT}


async def settled(look: Awaitable[T]) -> T:
    """The result from a broker that is not behind the others."""
    try:
        return await look
    except Refused as refused:
        raise AssertionError from refused


async def test_the_command_says_when_something_differs(
    kafka_bootstrap: str, prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("MUSTER_KAFKA_BOOTSTRAP", kafka_bootstrap)
    monkeypatch.setenv("MUSTER_TOPIC_PREFIX", prefix)

    async def topics_(*arguments: str) -> tuple[int, str]:
        result = await asyncio.to_thread(CliRunner().invoke, app, ["topics", *arguments, "--home", str(tmp_path)])
        return result.exit_code, result.output

    status, shown = await topics_("plan")
    assert (status, "missing" in shown) == (1, True)
    status, applied = await topics_("apply")
    assert status == 0, applied
    assert "User:billing" in applied
    status, shown = await topics_("plan")
    assert (status, "match the contracts" in shown) == (0, True)
    # Production does not have the sandbox's clock.
    status, shown = await topics_("plan", "--sandbox")
    assert (status, f"{CLOCK} " in shown) == (1, True)
    assert (await topics_("apply", "--sandbox"))[0] == 0
    assert (await topics_("plan", "--sandbox"))[0] == (await topics_("plan"))[0] == 0


async def test_after_a_rollback_a_later_releases_topic_is_in_nobodys_way(
    kafka_bootstrap: str, prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    kafka = kafka_at(kafka_bootstrap)
    await apply(kafka, prefix)
    later = topics()[TERM].model_copy(update={"name": "muster.old.thing"})
    await create_topics(kafka, prefix, [later])
    monkeypatch.setenv("MUSTER_KAFKA_BOOTSTRAP", kafka_bootstrap)
    monkeypatch.setenv("MUSTER_TOPIC_PREFIX", prefix)
    for verb in ("apply", "plan"):
        arguments = ["topics", verb, "--home", str(tmp_path), "--json"]
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
        (found,) = json.loads(result.stdout)["differences"]
        assert (result.exit_code, found["topic"], found["remedy"]) == (0, prefix + later.name, Remedy.OTHERS)
    (finding,) = [each async for each in check_cluster(Target({}, "", "", {}, prefix))]
    assert (finding.status, later.name in finding.found) == (Status.WARNING, True)

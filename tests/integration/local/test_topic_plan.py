"""`muster topics`: what differs is named, what is safe is made right, and the rest is left alone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiokafka.admin import NewPartitions, NewTopic
from typer.testing import CliRunner

from muster_contracts import topics
from muster_local.cli import app
from muster_local.topic_plan import Difference, Remedy, access_rules, apply, plan
from muster_local.topics import connect, create_topics, delete_topics

SEAT = "muster.entitlements.seat"


@pytest.fixture
async def prefix(kafka_bootstrap: str, topic_prefix: str) -> AsyncIterator[str]:
    yield topic_prefix
    await delete_topics(kafka_bootstrap, [topic_prefix + name for name in (*topics(), "muster.old.thing")])


async def test_apply_makes_a_cluster_as_described_and_leaves_what_is_not_its_to_change(
    kafka_bootstrap: str, prefix: str, eventually: Callable[..., Awaitable[Any]]
) -> None:
    async with connect(kafka_bootstrap) as admin:
        odd = [
            NewTopic(prefix + SEAT, 3, 1, topic_configs={"retention.ms": "1000", "max.message.bytes": "2000000"}),
            NewTopic(f"{prefix}muster.old.thing", 1, 1),
        ]
        await admin.create_topics(odd)

        async def all_there() -> bool:
            return {topic.name for topic in odd} <= set(await admin.list_topics())

        await eventually(all_there)
        found = await plan(kafka_bootstrap, prefix)
        wrong = {(d.topic.removeprefix(prefix), d.remedy) for d in found}
        assert (SEAT, Remedy.ALTER) in wrong
        assert (SEAT, Remedy.NONE) in wrong
        assert ("muster.old.thing", Remedy.NONE) in wrong
        assert {topic for topic, remedy in wrong if remedy is Remedy.CREATE} == topics().keys() - {SEAT}

        left = await apply(kafka_bootstrap, prefix, replicas=1)

        assert {d.topic.removeprefix(prefix) for d in left} == {SEAT, "muster.old.thing"}

        async def nothing_else_differs() -> bool:
            return await plan(kafka_bootstrap, prefix) == left

        await eventually(nothing_else_differs)
        described = {topic["topic"]: topic for topic in await admin.describe_topics([prefix + SEAT])}
        assert len(described[prefix + SEAT]["partitions"]) == 3


async def test_a_topic_that_has_grown_is_named(
    kafka_bootstrap: str, prefix: str, eventually: Callable[..., Awaitable[Any]]
) -> None:
    await create_topics(kafka_bootstrap, prefix, topics().values())

    async def nothing_differs() -> bool:
        return await plan(kafka_bootstrap, prefix) == []

    await eventually(nothing_differs)
    async with connect(kafka_bootstrap) as admin:
        await admin.create_partitions({prefix + SEAT: NewPartitions(13)})

    async def named() -> list[Difference]:
        return [d for d in await plan(kafka_bootstrap, prefix) if "13 partitions, not 12" in d.what]

    await eventually(named)


def test_the_access_rules_let_nobody_but_its_readers_at_a_restricted_topic() -> None:
    rules = list(access_rules("kafka:9092", "", topics().values()))
    directory = [rule for rule in rules if rule.endswith("--topic muster.entitlements.directory")]
    add = "kafka-acls.sh --bootstrap-server kafka:9092 --add --allow-principal"
    assert directory == [
        f"{add} User:entitlements --operation Write --operation Describe --topic muster.entitlements.directory",
        f"{add} User:notify --operation Read --operation Describe --topic muster.entitlements.directory",
    ]
    assert any(rule.endswith("--operation Read --group notify") for rule in rules)


async def test_the_command_says_when_something_differs(
    kafka_bootstrap: str, prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("MUSTER_KAFKA_BOOTSTRAP", kafka_bootstrap)
    monkeypatch.setenv("MUSTER_TOPIC_PREFIX", prefix)
    runner, home = CliRunner(), ["--home", str(tmp_path)]
    shown = await asyncio.to_thread(runner.invoke, app, ["topics", "plan", *home])
    assert (shown.exit_code, "missing" in shown.output) == (1, True)
    applied = await asyncio.to_thread(runner.invoke, app, ["topics", "apply", *home])
    assert applied.exit_code == 0, applied.output
    assert "User:billing" in applied.output
    shown = await asyncio.to_thread(runner.invoke, app, ["topics", "plan", *home])
    assert (shown.exit_code, "as described" in shown.output) == (0, True)

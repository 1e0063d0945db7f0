"""Brokers die, are away, or freeze: every acknowledged event stays, and no later one overtakes an earlier one."""

import asyncio
import os
import signal
import time
from functools import partial
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from muster_local.servers import kafka_at
from tests.faults import servers
from tests.faults.disk import SmallDisk
from tests.faults.field import Field
from tests.faults.findings import Findings
from tests.faults.probe.service import TOPIC
from tests.faults.readiness import readiness_reason
from tests.faults.servers import Server
from tests.support.eventually import eventually
from tests.support.services import TokenIssuer

KAFKA_AWAY = "Kafka cannot be reached"

# `make faults-long` keeps a broker down for as long as the catalog of faults says.
AWAY_SECONDS = float(os.environ.get("FAULT_AWAY_SECONDS", "20"))

# A consumer that does nothing for this long, though it could, ends its process: less than the broker is down.
STUCK_SECONDS = "10"

# Longer than a producer waits for a request's answer.
PAUSE_SECONDS = 43


async def test_06_killed_in_mid_batch_the_broker_comes_back_without_a_gap(
    field: Field, findings: Findings, kafka_server: Server
) -> None:
    await field.serve("relay")
    consumer = field.start("consumer")
    await field.ready(consumer)
    async with field.live_traffic():
        for _ in range(3):
            await asyncio.sleep(1 + field.dice.random() * 3)
            kafka_server.send(signal.SIGSTOP)  # so that what is sent now is in flight when it dies
            await eventually(field.has_backlog)
            kafka_server.kill()
            await kafka_server.up()
    findings.fault_is_over()
    await field.at_rest()
    findings.recovered(f"killed 3 times; {await field.repetitions()} events repeated on the topics")
    assert await field.differences() == []


async def test_07_while_the_broker_is_away_commands_commit_and_the_backlog_drains_in_order(
    field: Field, findings: Findings, kafka_server: Server
) -> None:
    await field.serve("relay", "consumer", settings={"MUSTER_CONSUMER_STUCK_SECONDS": STUCK_SECONDS})
    await field.traffic(10)
    await field.at_rest()
    kafka_server.kill()
    gone = time.monotonic()
    await field.traffic(60)
    assert {command.ending for command in field.recorder.commands()} == {"answered"}
    reason = await eventually(lambda: readiness_reason(field.api, KAFKA_AWAY))
    backlog = await field.admin.fetchval("select count(*) from outbox")
    assert backlog > 0
    await asyncio.sleep(max(0, gone + AWAY_SECONDS - time.monotonic()))
    await kafka_server.up()
    findings.fault_is_over()
    await field.at_rest(timeout=90)
    findings.recovered(f"{backlog} runs waited; readiness said: {reason}")
    await field.ready(field.api)  # which asserts that the process has not ended
    assert await field.differences() == []


async def test_54_asked_to_stop_while_the_broker_is_away_each_process_ends_its_work_and_stops(
    field: Field, findings: Findings, kafka_server: Server
) -> None:
    await field.serve()
    processes = [field.start(*roles) for roles in (["consumer"], ["consumer"], ["relay"], ["relay", "consumer"])]
    await field.ready(*processes)
    await field.traffic(10)
    kafka_server.kill()
    for process in processes:
        await eventually(partial(readiness_reason, process, KAFKA_AWAY))
    await field.traffic(10)
    seconds = await asyncio.gather(*(asyncio.to_thread(process.stop) for process in processes))
    assert [(process.exit_status, len(process.logged("service_stopped"))) for process in processes] == [(0, 1)] * 4
    assert await field.admin.fetch("select duty from lease") == []
    await kafka_server.up()
    findings.fault_is_over()
    await field.ready(field.start("relay", "consumer"))
    await field.at_rest(timeout=90)
    findings.recovered(f"4 processes stopped within {max(seconds):.1f} s, with exit status 0")
    assert await field.differences() == []


async def test_08_of_three_brokers_the_leader_dies_and_no_acknowledged_event_is_lost(
    tmp_path: Path,
    postgres_server: Server,
    topic_prefix: str,
    tokens: TokenIssuer,
    seed: int,
    findings: Findings,
) -> None:
    brokers = servers.kafka_quorum(tmp_path, 3)
    for broker in brokers:
        broker.start()
    for broker in brokers:
        await broker.up()
    bootstrap = ",".join(broker.program.address for broker in brokers)
    async with Field(
        tmp_path, postgres_server.program.address, kafka_at(bootstrap), topic_prefix, tokens, seed
    ) as field:
        await field.serve("relay", "consumer")
        async with field.live_traffic():
            await asyncio.sleep(3)
            leader = await _leader(field)
            brokers[leader - 1].kill()
            await eventually(lambda: _led_by_another(field, leader), timeout=60)
            findings.fault_is_over()
        await field.at_rest(timeout=90)
        findings.recovered(f"broker {leader} died; another one of the in-sync replicas leads")
        assert await field.differences() == []
        await brokers[leader - 1].up()
    for broker in brokers:
        broker.kill()


async def _leader(field: Field) -> int:
    """The node that leads the topic's first partition."""
    consumer = AIOKafkaConsumer(**kafka_at(field.bootstrap).options())
    await consumer.start()
    try:
        await consumer._client.force_metadata_update()
        node: int = consumer._client.cluster.leader_for_partition(TopicPartition(field.prefix + TOPIC, 0))
        return node
    finally:
        await consumer.stop()


async def _led_by_another(field: Field, former: int) -> bool:
    leader = await _leader(field)
    return leader > 0 and leader != former


async def test_09_paused_for_longer_than_a_request_waits_no_later_batch_overtakes_an_earlier_one(
    field: Field, findings: Findings, kafka_server: Server
) -> None:
    await field.serve("relay")
    field.start("consumer")
    await field.traffic(20)
    await field.at_rest()
    traffic = asyncio.create_task(field.traffic(150, at_once=2))
    await eventually(field.has_backlog)
    kafka_server.send(signal.SIGSTOP)
    await traffic
    await asyncio.sleep(PAUSE_SECONDS)
    kafka_server.send(signal.SIGCONT)
    findings.fault_is_over()
    await field.at_rest(timeout=90)
    findings.recovered(f"{await field.repetitions()} events repeated on the topics")
    assert await field.differences() == []


async def test_25_on_a_full_disk_the_broker_stops_and_nothing_acknowledged_is_lost(
    tmp_path: Path,
    postgres_server: Server,
    topic_prefix: str,
    tokens: TokenIssuer,
    seed: int,
    findings: Findings,
) -> None:
    with SmallDisk(tmp_path / "disk", megabytes=64) as disk:
        broker = servers.kafka(disk.folder)
        await broker.up()
        dsn, bootstrap = postgres_server.program.address, broker.program.address
        async with Field(tmp_path, dsn, kafka_at(bootstrap), topic_prefix, tokens, seed) as field:
            await field.serve("relay", "consumer")
            await field.traffic(20)
            await field.at_rest()
            disk.fill()
            await field.traffic(60)
            await eventually(lambda: not broker.runs, timeout=60)  # it stops on its own
            reason = await eventually(lambda: readiness_reason(field.api, KAFKA_AWAY), timeout=60)
            assert {command.ending for command in field.recorder.commands()} == {"answered"}
            disk.empty()
            findings.fault_is_over()
            await broker.up()
            await field.at_rest(timeout=90)
            findings.recovered(f"readiness said: {reason}")
            await field.ready(field.api)
            assert await field.differences() == []
        broker.kill()

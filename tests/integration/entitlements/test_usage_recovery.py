"""The intake of use after failures: what Kafka, the database, or another process has lost or recreated is counted."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from structlog.testing import capture_logs

from muster_contracts import topics
from muster_contracts.entitlements import FeatureUsed
from muster_entitlements.bootstrap import build
from muster_entitlements.repository import usage_intake
from muster_entitlements.repository.usage_intake import Place
from muster_entitlements.settings import EntitlementsSettings
from muster_entitlements.workers import usage as usage_worker
from muster_entitlements.workers.usage import UsageIntake
from muster_entitlements.workers.usage_places import ALL, Lane
from muster_entitlements.workers.usage_polling import Poller
from muster_operator.topics import create_topics, delete_topics
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.process.roles import Role
from muster_runtime.service import Runtime
from tests.integration.entitlements.conftest import Entitlements
from tests.integration.entitlements.test_usage import LATER, used
from tests.integration.entitlements.test_usage_intake import STRUCTURED, count_all, counts, put
from tests.integration.runtime.core.conftest import put_unreadable
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner


@asynccontextmanager
async def counting(*runtimes: Runtime, lanes: Sequence[Lane] = (ALL,)) -> AsyncIterator[None]:
    """Intakes of these processes run until the block ends, one for each lane."""
    tasks = [asyncio.create_task(UsageIntake(runtime, lane).run()) for runtime in runtimes for lane in lanes]
    try:
        yield
        assert not [task for task in tasks if task.done()], "an intake has ended by itself"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def process(runtime: Runtime, **changes: Any) -> Runtime:
    """Another process of the service."""
    return replace(runtime, settings=runtime.settings.model_copy(update={"instance": "another"}), **changes)


async def test_a_process_that_cannot_reach_kafka_leaves_its_lane_to_another(front: Entitlements) -> None:
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    runtime = front.service.runtime
    with capture_logs() as logs:
        async with counting(process(runtime, kafka=KafkaConnection.plain("127.0.0.1:1"))):
            await eventually(lambda: [entry for entry in logs if entry["event"] == "usage_intake_retried"])
            async with counting(runtime):
                await put(front, used(1))
                await eventually(partial(counts, front, 1))


async def test_a_process_that_is_cut_off_from_kafka_while_it_reads_leaves_its_lane_to_another(
    front: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    runtime = front.service.runtime
    clients: list[Any] = []

    class Noted(Poller):
        def __init__(self, runtime: Runtime, consumer: AIOKafkaConsumer, begins: Mapping[TopicPartition, int]) -> None:
            super().__init__(runtime, consumer, begins)
            clients.append(consumer)

    async def no_connection(*_arguments: Any, **_options: Any) -> None:
        """As when a network policy drops what this process sends: polls return nothing, and no error."""

    monkeypatch.setattr(usage_worker, "Poller", Noted)
    monkeypatch.setattr(usage_worker, "LOOK_SECONDS", 0.5)
    async with counting(process(runtime)):
        await put(front, used(1))
        await eventually(partial(counts, front, 1))
        client = clients[0]._client
        client._get_conn = no_connection
        for connection in list(client._conns.values()):
            connection.close()
        async with counting(runtime):
            await put(front, used(2))
            await eventually(partial(counts, front, 2))


async def test_use_that_a_failover_has_lost_is_counted_again_though_nothing_new_comes(
    front: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_worker, "LOOK_SECONDS", 0.5)
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    admin = front.service.admin
    async with counting(front.service.runtime):
        await put(front, used(1), used(2), used(3))
        await eventually(partial(counts, front, 3))
        async with admin.transaction():
            for table in ("usage_seen", "usage_sum", "usage_offset"):
                await admin.execute(f"delete from {table}")
        await eventually(partial(counts, front, 3))


async def make_again(front: Entitlements, partitions: int) -> None:
    """Delete the topic of use, and recreate it with this many partitions."""
    kafka, topic = front.service.runtime.kafka, front.service.topic_prefix + FeatureUsed.topic
    async with AIOKafkaConsumer(**kafka.options(), metadata_max_age_ms=100) as asked:

        async def there(expected: bool) -> bool:
            return (topic in await asked.topics()) is expected

        await delete_topics(kafka, [topic])
        await eventually(partial(there, False))
        await create_topics(kafka, front.service.topic_prefix, [topics()[FeatureUsed.topic]], partitions=partitions)
        await eventually(partial(there, True))


async def put_first(front: Entitlements, *events: Any) -> None:
    """Put events on the first partition."""
    for event in events:
        value = event if isinstance(event, bytes) else json.dumps(event).encode()
        await front.service.producer.put_raw(
            FeatureUsed.topic, key=b"NASA", value=value, headers=STRUCTURED, partition=0
        )


async def test_use_on_a_topic_that_was_recreated_is_counted_from_its_beginning(front: Entitlements) -> None:
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    runtime, admin = front.service.runtime, front.service.admin
    await put_first(front, b"{", used(1), used(2))
    await count_all(UsageIntake(runtime))
    assert await counts(front, 2)
    columns = "kafka_offset, key, header_names, header_values, value"
    await admin.execute(  # deferred in a partition that the smaller topic will lack
        f"""
        insert into usage_deferred (topic, kafka_partition, {columns}, waits_for, deferred_at)
        select topic, 1, {columns}, 'NASA', parked_at from usage_parked
        """
    )
    await make_again(front, partitions=1)
    await put_first(front, b"[", *(used(number) for number in range(10, 15)))
    intake = UsageIntake(runtime)
    with capture_logs() as logs:
        await count_all(intake)
    [told] = [line for line in logs if line["event"] == "usage_topic_recreated"]
    assert (told["log_level"], told["partition"], told["offset"]) == ("error", 0, 3)
    await intake.deferred.count()  # hers wait behind those of the earlier topic
    assert await counts(front, 7)
    assert await admin.fetchval("select count(*) from usage_deferred") == 0
    parked = await admin.fetch("select convert_from(value, 'UTF8') as value from usage_parked order by id")
    assert [row["value"] for row in parked] == ["{", "[", "{"]
    assert await admin.fetchval("select count(*) from usage_offset where next_offset = 6") == 1
    await make_again(front, partitions=1)
    await put_first(front, b"(")
    await count_all(UsageIntake(runtime))
    parked = await admin.fetch("select convert_from(value, 'UTF8') as value from usage_parked order by id")
    assert [row["value"] for row in parked] == ["{", "[", "{", "("]


async def test_what_was_passed_on_an_earlier_topic_skips_nothing_of_the_next(front: Entitlements) -> None:
    await front.enroll(cap=5)
    service = front.service
    service.clock.move(LATER)
    path = f"/v1/partitions/{FeatureUsed.topic}/0/pass"
    assert (await service.client.post(path, json={"offset": 0, "last_offset": 3, "reason": "damaged"})).is_success

    async def read(offset: int) -> bool:
        return bool(await service.admin.fetchval("select next_offset = $1 from usage_offset", offset))

    await make_again(front, partitions=1)
    async with counting(service.runtime):
        await put_first(front, used(1))
        await eventually(partial(read, 1))
    await make_again(front, partitions=1)
    await put_unreadable(service, "NASA", FeatureUsed.topic, partitions=1)
    await put_first(front, used(2), used(3))
    async with counting(service.runtime):
        await eventually(partial(read, 0))
        assert (await service.client.post(path, json={"offset": 0, "reason": "damaged"})).is_success
        await eventually(partial(counts, front, 3))


async def test_an_agency_that_a_failover_has_lost_is_no_stranger(front: Entitlements) -> None:
    """The database has gone back between two batches; the consumer reads the enrollment again."""
    await front.enroll(cap=5)
    service = front.service
    service.clock.move(LATER)
    intake = UsageIntake(service.runtime)
    async with intake._opened() as consumer:
        poller = Poller(service.runtime, consumer, intake._places.next)
        for partition in range(2):
            await service.producer.put_raw(
                FeatureUsed.topic,
                key=None,
                value=json.dumps(used(partition)).encode(),
                headers=STRUCTURED,
                partition=partition,
            )
            while not (batch := await usage_worker._fetch(poller)).records:
                pass
            await intake.count(batch)
            await service.admin.execute("delete from usage_seen")
            await service.admin.execute("delete from usage_offset where kafka_partition = 0")
            await service.admin.execute("delete from pool")
    assert await service.admin.fetchval("select count(*) from usage_parked") == 0
    assert await service.admin.fetchval("select count(*) from usage_deferred") == 1


async def test_what_kafka_deletes_before_it_is_counted_is_told(front: Entitlements) -> None:
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    await put(front, used(1))
    runtime = front.service.runtime
    await count_all(UsageIntake(runtime))
    await put(front, *(used(number) for number in range(2, 6)))
    [(number, offset)] = await front.service.admin.fetch("select kafka_partition, next_offset from usage_offset")
    partition = TopicPartition(front.service.topic_prefix + FeatureUsed.topic, number)
    admin = AIOKafkaAdminClient(**runtime.kafka.options())
    await admin.start()
    await admin.delete_records({partition: RecordsToDelete(before_offset=offset + 3)})
    await admin.close()
    await front.service.admin.execute("update usage_offset set topic_id = null")  # as before the column existed
    with capture_logs() as logs:
        await count_all(UsageIntake(runtime))
    assert [line["records"] for line in logs if line["event"] == "usage_lost"] == [3]
    assert await front.service.admin.fetchval("select count(*) from usage_offset where topic_id is null") == 0
    assert await counts(front, 2)


async def test_a_worker_whose_usage_topic_is_gone_is_not_ready(front: Entitlements, run_service: ServiceRunner) -> None:
    worker = await run_service(build, EntitlementsSettings, roles=frozenset({Role.WORKER}), beside=front.service)

    async def reasons() -> list[str]:
        found: list[str] = (await worker.client.get("/health/ready")).json()["reasons"]
        return found

    assert await reasons() == []
    topic = front.service.topic_prefix + FeatureUsed.topic
    await delete_topics(front.service.runtime.kafka, [topic])

    async def told() -> bool:
        return await reasons() == [f"the topic {topic} is missing"]

    await eventually(told)


async def test_a_lane_without_partitions_reads_those_of_the_topic_that_is_recreated(
    front: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_worker, "LOOK_SECONDS", 0.5)
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    runtime = front.service.runtime
    await make_again(front, partitions=1)
    async with counting(runtime, lanes=[Lane(number, 2) for number in range(2)]):
        await put_first(front, used(1))
        await eventually(partial(counts, front, 1))
        await make_again(front, partitions=2)
        value = json.dumps(used(2)).encode()
        async with AIOKafkaProducer(**runtime.kafka.options()) as producer:  # which knows the new partitions
            topic = front.service.topic_prefix + FeatureUsed.topic
            await producer.send_and_wait(topic, value, headers=STRUCTURED, partition=1)
        await eventually(partial(counts, front, 2), timeout=60)


async def test_a_process_that_moves_a_partition_waits_for_another_one_that_does(front: Entitlements) -> None:
    database, topic = front.service.runtime.database, FeatureUsed.topic

    async def move() -> bool:
        async with database.connection() as connection, connection.transaction():
            return await usage_intake.move(connection, topic, "t", {0: (3, 5)})

    async with database.connection() as first:
        await usage_intake.save_places(first, topic, {0: Place(3, "t")})
        async with first.transaction():
            assert await usage_intake.move(first, topic, "t", {0: (3, 4)})
            second = asyncio.create_task(move())
            waits = "select exists (select from pg_locks where not granted)"
            await eventually(lambda: front.service.admin.fetchval(waits))
        assert await second is False
        assert not await usage_intake.move(first, topic, "t", {0: (4, 3)})  # nor back
        assert await usage_intake.list_offsets(first) == {(topic, 0): 4}

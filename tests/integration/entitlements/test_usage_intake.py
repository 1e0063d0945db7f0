"""The topic of reported use: each event counts once whatever dies, and what cannot be counted is parked alone."""

import asyncio
import itertools
import json
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import REGISTRY

from muster_contracts.entitlements import FeatureUsed
from muster_contracts.testing import build, record
from muster_entitlements.domain.usage import read_record
from muster_entitlements.repository import usage_intake
from muster_entitlements.workers import usage as usage_worker
from muster_entitlements.workers import usage_polling
from muster_entitlements.workers.usage import UsageIntake
from muster_entitlements.workers.usage_polling import Poller
from muster_runtime.messaging.producers import partition_of
from muster_runtime.service import Runtime
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_usage import ADA, LATER, report, sums, used
from tests.integration.runtime.core.conftest import put_unreadable
from tests.support.eventually import eventually
from tests.support.services import PARTITIONS

STRUCTURED = [("content-type", b"application/cloudevents+json")]


async def put(entitlements: Entitlements, *events: Any) -> None:
    """Put events on the topic as a producer outside Muster does; bytes as they are."""
    for event in events:
        value = event if isinstance(event, bytes) else json.dumps(event).encode()
        await entitlements.service.producer.put_raw(FeatureUsed.topic, key=b"NASA", value=value, headers=STRUCTURED)


async def counts(entitlements: Entitlements, number: int) -> bool:
    """Whether this many of Ada's uses are counted."""
    return (await sums(entitlements)).get((ADA, "10-05")) == number


async def count_all(intake: UsageIntake) -> None:
    """Count all that the topic has now, in the partitions of the intake's lane."""
    async with intake._opened() as consumer:
        poller = Poller(intake._runtime, consumer, intake._places.next)
        ends = await consumer.end_offsets(intake._places.next)
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            if (batch := await usage_worker._fetch(poller)).records:
                await intake.count(batch)


def test_the_examples_of_the_contract_are_read() -> None:
    use = read_record(record(build(FeatureUsed, subject_ref=ADA)))
    assert (use.agency_id, use.subject_ref, use.amount) == ("NASA", ADA, 1)


async def test_what_cannot_be_counted_is_parked_alone_until_an_operator_discards_it(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=5)
    service = entitlements.service
    service.clock.move(LATER)
    await put(entitlements, used(1), b"{", used(2, amount=-1), used(1), used(3, amount=2), used(4, agency_id="NSF"))
    await put(entitlements, used(3, amount=3))
    for number, headers in ((8, [*STRUCTURED, ("trace", None)]), (9, [("content-type", None), ("a", b"b" * 3_000)])):
        event = json.dumps(used(number)).encode()
        await service.producer.put_raw(FeatureUsed.topic, key=None, value=event, headers=headers)  # type: ignore[arg-type]

    async def parked() -> list[dict[str, Any]] | None:
        reply = await service.client.get("/v1/usage/parked")
        items: list[dict[str, Any]] = reply.json()["items"]
        return items if len(items) == 5 else None

    items = await eventually(parked)
    fields = sorted(item["reason"].partition(" ")[0] for item in items)
    assert fields == ["data.agency_id", "data.amount", "id", "specversion", "value"]
    assert [item["reason"] for item in items if item["reason"].startswith("id must be new for its source")]
    reads = (await service.client.get("/v1/personal-reads")).json()["items"]
    records = [f"{FeatureUsed.topic}/{item['partition']}/{item['offset']}" for item in items]
    assert [each["subject_refs"] for each in reads if each["subject_refs"] == records] == [records]
    assert {(each["agency_id"], each["route"]) for each in reads} == {("*", "GET /v1/usage/parked")}
    assert {item["value"][:1] for item in items} == {"{"}
    assert [item["headers"] for item in items if "a" in item["headers"]] == [
        {"content-type": "", "a": "b" * 2_000 + "... [cut]"}
    ]
    await eventually(partial(counts, entitlements, 4))
    assert await service.admin.fetchval("select count(*) from agency_instant where agency_id = 'NSF'") == 0
    # What arrived on the topic does not count again over HTTP.
    assert (await report(entitlements, used(1), used(3, amount=2))).json()["repeated"] == 2
    health = (await service.client.get("/health/ready")).json()
    assert [warning for warning in health["warnings"] if "5 usage records" in warning]

    token = service.token("entitlements:operate", agency="NASA")
    reply = await service.client.get("/v1/usage/parked", headers={"Authorization": f"Bearer {token}"})
    assert reply.status_code == 403
    body = {"ids": [item["id"] for item in items], "reason": "the producer has been corrected"}
    for key, discarded in (("one", 5), ("one", 5), ("two", 0)):
        reply = await service.client.post("/v1/usage/parked/discard", json=body, headers={"Idempotency-Key": key})
        assert reply.json() == {"discarded": discarded}, reply.text
    # Nobody can take the key under which the approval of a program's proposal stores its reply.
    taken = await service.client.post("/v1/usage/parked/discard", json=body, headers={"Idempotency-Key": "prp_1"})
    assert (taken.status_code, taken.json()["type"]) == (400, "urn:muster:problem:invalid-idempotency-key")
    audited = await service.admin.fetchval("select count(*) from audit where command = 'DiscardParkedUsage'")
    assert audited == 2

    # What nobody discards is deleted when it can no longer count.
    async def holds(records: int) -> bool:
        return bool(await service.admin.fetchval("select count(*) = $1 from usage_parked", records))

    await put(entitlements, b"{")
    await eventually(partial(holds, 1))
    service.clock.move(LATER + timedelta(days=45))
    await eventually(partial(holds, 0))


async def test_a_record_that_the_client_cannot_decode_waits_and_holds_back_its_partition_alone(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_polling, "WAIT_SECONDS", 0.2)
    monkeypatch.setattr(usage_worker, "LOOK_SECONDS", 0.2)
    await entitlements.enroll(cap=5)
    service = entitlements.service
    service.clock.move(LATER)
    partition = partition_of(b"NASA", PARTITIONS)
    await put(entitlements, used(1))
    await put_unreadable(service, "NASA", FeatureUsed.topic)
    await put(entitlements, used(2))
    await service.producer.put_raw(
        FeatureUsed.topic,
        key=None,
        value=json.dumps(used(3)).encode(),
        headers=STRUCTURED,
        partition=(partition + 1) % PARTITIONS,
    )

    await eventually(partial(counts, entitlements, 2))
    await eventually(partial(waits, 2))
    offset = await service.admin.fetchval("select next_offset from usage_offset where kafka_partition = $1", partition)
    path = f"/v1/partitions/{FeatureUsed.topic}/{partition}/pass"
    reply = await service.client.post(path, json={"offset": offset, "reason": "damaged"})
    assert reply.status_code == 200, reply.text
    await eventually(partial(counts, entitlements, 3))
    await eventually(partial(waits, 0))


async def waits(records: int) -> bool:
    """Whether the metric says that this many records wait on the topic."""
    lanes = (REGISTRY.get_sample_value("muster_usage_lag", {"service": "entitlements", "lane": lane}) for lane in "01")
    return sum(each or 0 for each in lanes) == records


async def test_a_kill_between_sum_and_offset_counts_each_event_once(
    front: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    await put(front, used(1), used(2, amount=4), b"{")
    runtime = front.service.runtime

    async def killed(*_arguments: Any) -> None:
        raise ConnectionError("the process was killed")

    with monkeypatch.context() as patch:
        patch.setattr(usage_intake, "add_parked", killed)  # after the sums and the offsets, before the commit
        with pytest.raises(ConnectionError):
            await count_all(UsageIntake(runtime))
    expected = {(ADA, "10-05"): 5, ("", "10-05"): 5}
    once = UsageIntake(runtime)
    await count_all(once)
    assert await sums(front) == expected

    # A process that was thought dead, and one whose database was set back.
    late = UsageIntake(runtime)
    async with late._opened() as consumer:
        stale = dict.fromkeys(late._places.next, 0)
        await put(front, used(3))
        await count_all(once)
        late._places.next = stale
        for partition in stale:
            consumer.seek(partition, 0)
        poller = Poller(runtime, consumer, late._places.next)
        while not (batch := await usage_worker._fetch(poller)).records:
            pass
        with pytest.raises(Exception, match="read further"):
            await late.count(batch)
    expected = {key: number + 1 for key, number in expected.items()}
    assert await sums(front) == expected
    await front.service.admin.execute("delete from usage_offset")
    await count_all(UsageIntake(runtime))
    assert await sums(front) == expected
    assert await front.service.admin.fetchval("select count(*) from usage_parked") == 1


async def test_what_was_fetched_ahead_of_a_failure_is_not_lost(
    front: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    await put(front, *(used(number) for number in range(8)))
    move, calls = usage_intake.move, itertools.count()

    async def fails_at_times(*arguments: Any) -> bool:
        if next(calls) in (1, 2, 4):
            raise ConnectionError("the connection was cut")
        return await move(*arguments)

    async def all_are_counted() -> bool:
        return await sums(front) == {(ADA, "10-05"): 8, ("", "10-05"): 8}

    monkeypatch.setattr(usage_intake, "move", fails_at_times)
    monkeypatch.setattr(usage_worker, "BATCH_RECORDS", 2)
    monkeypatch.setattr(usage_worker, "RETRY_SECONDS", 0.01)
    counting = asyncio.create_task(UsageIntake(front.service.runtime).run())
    try:
        await eventually(all_are_counted)
    finally:
        counting.cancel()
        await asyncio.wait([counting])


async def test_a_client_whose_own_task_has_ended_is_replaced(
    front: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    clients: list[AIOKafkaConsumer] = []

    class Noted(Poller):
        def __init__(self, runtime: Runtime, consumer: AIOKafkaConsumer, begins: Mapping[TopicPartition, int]) -> None:
            super().__init__(runtime, consumer, begins)
            clients.append(consumer)

    monkeypatch.setattr(usage_worker, "Poller", Noted)
    monkeypatch.setattr(usage_worker, "RETRY_SECONDS", 0.01)
    counting = asyncio.create_task(UsageIntake(front.service.runtime).run())
    try:
        await put(front, used(1))
        await eventually(partial(counts, front, 1))
        fetcher: Any = clients[-1]._fetcher
        fetcher._fetch_task.cancel()
        for number in (2, 3):  # the first may come by a request that was under way
            await put(front, used(number))
            await eventually(partial(counts, front, number))
    finally:
        counting.cancel()
        await asyncio.wait([counting])


async def test_grants_pay_where_the_quota_does_not(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=2)
    seat = (await entitlements.assign(1)).json()
    entitlements.service.clock.move(LATER)
    post = entitlements.post
    grant: dict[str, Any] = {"feature": "deep-research", "amount": 3, "reason": "a deadline of the mission"}
    own = await post("quota-grants", {**grant, "subject": "person.1@nasa.gov", "priority": 1})
    assert own.status_code == 201, own.text
    all_ = await post("quota-grants", {**grant, "amount": 2, "ends_at": (LATER + timedelta(days=1)).isoformat()})
    assert all_.json()["subject_ref"] is None
    use = {"subject": "person.1@nasa.gov", "feature": "deep-research", "amount": 29}
    assert (await post("usage/consume", use)).json()["used"] == 29
    refused = await post("usage/consume", {**use, "amount": 2})
    assert (refused.status_code, refused.json()["remaining"]) == (409, 1)
    grants = (await entitlements.get("quota-grants")).json()["items"]
    assert {each["subject_ref"]: each["spent"] for each in grants} == {seat["subject_ref"]: 2, None: 2}
    usage = (await entitlements.get("usage", feature="deep-research")).json()["items"]
    assert [(each["subject_ref"], each["used"], each["granted"]) for each in usage] == [
        (None, 29, 0),
        (seat["subject_ref"], 29, 4),
    ]
    wrong: dict[str, dict[str, Any]] = {
        "amount": {"amount": 0},
        "ends_at": {"ends_at": START.isoformat()},
        "reason": {"reason": ""},
        "subject": {"subject": "ada"},
    }
    for field, change in wrong.items():
        reply = await post("quota-grants", grant | change)
        assert (reply.status_code, reply.json()["errors"][0]["field"]) == (422, field)
    assert (await post("quota-grants", grant | {"feature": "telepathy"})).status_code == 404

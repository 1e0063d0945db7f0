"""A record that Kafka's client cannot decode hides no lost commit, and stops no operator."""

import tracemalloc

import pytest
from aiokafka import AIOKafkaProducer

from muster_contracts.entitlements import SeatAssigned
from muster_runtime.messaging import restore_guard
from muster_runtime.messaging.restore_guard import published_runs
from muster_runtime.scheduling import hold
from tests.integration.runtime.core.conftest import delay_fetches, put_unreadable
from tests.integration.runtime.core.relays import (
    lose_commits,
    outbox_is_empty,
    partition,
    relay_all,
    relaying,
    release_deadlines,
    write,
)
from tests.integration.runtime.core.test_restore_guard import held, raise_epoch
from tests.support.eventually import eventually
from tests.support.services import RunningService

MIB = 1024 * 1024
TOPIC = SeatAssigned.topic


@pytest.mark.parametrize("after", [0, 1])
async def test_a_lost_commit_is_found_beside_an_unreadable_record(idle_probe: RunningService, after: int) -> None:
    """Before it, and after it: the client discards what it has decoded in the same poll."""
    await write(idle_probe, "NASA", "one")
    await relay_all(idle_probe)
    if after:
        await put_unreadable(idle_probe, "NASA")
    await write(idle_probe, "NASA", "two")
    await relay_all(idle_probe)
    if not after:
        await put_unreadable(idle_probe, "NASA")
    await lose_commits(idle_probe)
    await write(idle_probe, "NASA", "another two")

    async with relaying(idle_probe) as relay:
        assert "NASA has an event at epoch 1, sequence 2" in await eventually(lambda: held(relay))
        await eventually(lambda: hold.held_since(idle_probe.admin))
    refused = await release_deadlines(idle_probe)
    assert refused.status_code == 409, refused.text


async def test_an_end_with_too_much_that_is_unreadable_is_compared_once_an_operator_has_passed_it(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(idle_probe, "NASA", "one")
    await relay_all(idle_probe)
    for _ in range(20):
        await put_unreadable(idle_probe, "NASA")
    await write(idle_probe, "DOE", "waits")
    await idle_probe.admin.execute("update epoch set deadlines_held_since = now()")
    await idle_probe.admin.execute("update topic_comparison set server_started_at = 'epoch'")
    delay_fetches(monkeypatch, 0.2)  # for each unreadable record
    monkeypatch.setattr(restore_guard, "PATIENCE_SECONDS", 2.0)
    place = f"{TOPIC}[{partition('NASA')}]@1"

    async with relaying(idle_probe) as relay:
        assert place in await eventually(lambda: held(relay))
        refused = await release_deadlines(idle_probe)
        assert refused.status_code == 409, refused.text
        order = {"offset": 1, "last_offset": 20, "reason": "written by a tool, see ticket 4714"}
        path = f"/v1/partitions/{TOPIC}/{partition('NASA')}/pass"
        (await idle_probe.client.post(path, json=order)).raise_for_status()
        await eventually(lambda: outbox_is_empty(idle_probe), timeout=30)
    assert (await release_deadlines(idle_probe)).status_code == 200


async def test_an_unreadable_record_does_not_stop_an_epoch_from_being_raised(idle_probe: RunningService) -> None:
    """What is beside it is still found: a published event does not move to the new epoch."""
    await write(idle_probe, "NASA", "one")
    await relay_all(idle_probe)
    await put_unreadable(idle_probe, "NASA")
    await write(idle_probe, "NASA", "two")
    await idle_probe.admin.execute("create table kept as select * from outbox")
    await relay_all(idle_probe)
    await idle_probe.admin.execute("insert into outbox overriding system value select * from kept")
    await write(idle_probe, "NASA", "three")

    await raise_epoch(idle_probe)
    waiting = await idle_probe.admin.fetch("select epoch, first_sequence from outbox order by id")
    assert [tuple(each) for each in waiting] == [(1, 2), (2, 3)]


async def test_a_batch_that_decompresses_to_too_much_takes_no_memory(idle_probe: RunningService) -> None:
    """Another program's batch of 200 MiB is skipped; its batches of 12 MiB are read, but not all at once."""
    await write(idle_probe, "NASA", "one")
    await idle_probe.admin.execute("create table kept as select * from outbox")
    await relay_all(idle_probe)
    await _put_compressed(idle_probe, "NASA", 200, *[12] * 20)
    await write(idle_probe, "NASA", "two")
    await idle_probe.admin.execute("insert into kept select * from outbox")
    await relay_all(idle_probe)
    await idle_probe.admin.execute("insert into outbox overriding system value select * from kept")
    runtime = idle_probe.runtime
    tracemalloc.start()
    found = await published_runs(runtime.database, runtime.kafka, runtime.settings.topic_prefix)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 2
    assert peak < 100 * MIB


async def _put_compressed(probe: RunningService, agency_id: str, *sizes: int) -> None:
    """Put on an agency's partition a batch for each of these sizes in MiB."""
    producer = AIOKafkaProducer(
        bootstrap_servers=probe.runtime.settings.kafka_bootstrap,
        compression_type="zstd",
        max_batch_size=256 * MIB,
        max_request_size=256 * MIB,
    )
    await producer.start()
    for size in sizes:
        batch = producer.create_batch()
        assert batch.append(key=b"NASA", value=bytes(size * MIB), timestamp=None) is not None
        await (await producer.send_batch(batch, probe.topic_prefix + TOPIC, partition=partition(agency_id)))
    await producer.stop()

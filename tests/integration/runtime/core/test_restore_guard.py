"""A database that has lost commits: its topics reveal the loss."""

import asyncio
import re
import tracemalloc
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from muster_contracts import event_id
from muster_contracts.entitlements import SeatAssigned
from muster_local.servers import kafka_at
from muster_runtime.database.transactions import EVERY_AGENCY
from muster_runtime.messaging import epochs, restore_guard
from muster_runtime.messaging.lease import RELAY, Lease
from muster_runtime.messaging.relay import Relay
from muster_runtime.messaging.restore_guard import published_runs
from muster_runtime.operations import streams
from tests.integration.runtime.core.conftest import ProbeStarter
from tests.integration.runtime.core.relays import (
    lose_commits,
    outbox_is_empty,
    publish_and_lose,
    relay_all,
    relaying,
    seat,
    write,
)
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.services import RunningService

TOPIC = "muster.entitlements.seat"


async def test_a_database_that_has_lost_commits_publishes_nothing_until_its_epoch_is_raised(
    idle_probe: RunningService,
) -> None:
    """As after a restore, or a failover to a lagging replica."""
    await write(idle_probe, "NASA", "one", "two")
    await write(idle_probe, "DOE", "one")
    await relay_all(idle_probe)
    await lose_commits(idle_probe)
    await write(idle_probe, "EPA", "after the loss")

    async with relaying(idle_probe) as relay:
        assert "it was restored; raise its epoch" in await eventually(lambda: held(relay))
        assert not await outbox_is_empty(idle_probe)
    assert len(await idle_probe.published(SeatAssigned)) == 3

    await raise_epoch(idle_probe)
    await write(idle_probe, "NASA", "another two")
    await write(idle_probe, "DOE", "another one")
    await relay_all(idle_probe)
    positions = await published_positions(idle_probe)
    assert {("NASA", 2, 2), ("DOE", 2, 1), ("EPA", 2, 1)} <= set(positions)
    assert len(positions) == len(set(positions)) == 6


async def raise_epoch(probe: RunningService, above: int = 0) -> None:
    order = {"reason": "restored from a backup", "above": above}
    (await probe.client.post("/v1/epoch", json=order)).raise_for_status()


async def test_an_epoch_is_not_raised_beside_a_relay_of_another_process(idle_probe: RunningService) -> None:
    async with relaying(idle_probe):
        await eventually(lambda: leads(idle_probe, "the same name"))
        await refuses_to_raise(idle_probe)
    await raise_epoch(idle_probe)


async def test_an_epoch_is_not_raised_where_a_relay_has_died_after_the_topics_were_read(
    idle_probe: RunningService, probe_process: ProbeStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had published would be published again in the new epoch, as new events."""
    await write(idle_probe, "NASA", "one", "two")

    async def relay_dies(*arguments: Any) -> Mapping[int, int]:
        found = await published_runs(*arguments)
        dying = await probe_process("relay", dies_before="delete")
        async with asyncio.timeout(30):
            assert await dying.wait() == -9
        await eventually(lambda: nobody_leads(idle_probe))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(streams, "published_runs", relay_dies)
        await refuses_to_raise(idle_probe)
    await raise_epoch(idle_probe)
    await relay_all(idle_probe)
    assert set(await published_positions(idle_probe)) == {("NASA", 1, 1), ("NASA", 1, 2)}


async def test_no_relay_takes_the_lead_before_the_raised_epoch_is_committed(idle_probe: RunningService) -> None:
    database = idle_probe.runtime.database
    now = await epochs.database_now(database)

    async def relay_waits() -> bool:
        waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'relation'"
        return bool(await idle_probe.admin.fetchval(waiting) == 1)

    async with database.write(EVERY_AGENCY, context=CONTEXT) as uow:
        await epochs.require_no_other_relay(uow, "probe", "this process", now)
        taking = asyncio.create_task(Lease(database, RELAY, "another process").take())
        await eventually(relay_waits)
    assert await taking


async def test_a_lease_that_ends_later_than_any_can_hinders_no_raised_epoch(idle_probe: RunningService) -> None:
    """The server's clock was set back since. Nobody leads: any relay may take such a lease."""
    hour_ahead = "clock_timestamp() + interval '1 hour'"
    await idle_probe.admin.execute(f"insert into lease values ('{RELAY}', 'another process', {hour_ahead})")
    await raise_epoch(idle_probe)


async def refuses_to_raise(probe: RunningService) -> None:
    refused = await probe.client.post("/v1/epoch", json={"reason": "restored from a backup"})
    assert refused.status_code == 409, refused.text
    assert "a process of probe is still publishing" in refused.json()["detail"]


async def leads(probe: RunningService, holder: str) -> bool:
    found: bool = await probe.admin.fetchval("select exists (select from lease where holder = $1)", holder)
    return found


async def nobody_leads(probe: RunningService) -> bool:
    over: bool = await probe.admin.fetchval("select not exists (select from lease where expires_at > now())")
    return over


async def test_an_epoch_is_not_raised_while_a_topic_cannot_be_read(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its request would wait for a leader, however long that takes."""
    await write(idle_probe, "NASA", "one")
    with monkeypatch.context() as patch:
        patch.setattr(restore_guard, "leaderless", lambda consumer: list(consumer.assignment())[:1])
        reply = await idle_probe.client.post("/v1/epoch", json={"reason": "restored from a backup"})
    assert (reply.status_code, "no leader serves" in reply.json()["detail"]) == (409, True), reply.text
    await raise_epoch(idle_probe)


async def test_a_position_that_a_database_assigns_twice_is_published_in_the_new_epoch_alone(
    idle_probe: RunningService,
) -> None:
    """Commands continued after the loss, and have reached the topic's last position; none of them is lost."""
    await publish_and_lose(idle_probe)
    await write(idle_probe, "NASA", "another two")
    await write(idle_probe, "NASA", "three")

    async with relaying(idle_probe) as relay:
        assert "NASA has an event at epoch 1, sequence 2" in await eventually(lambda: held(relay))
    assert len(await idle_probe.published(SeatAssigned)) == 2

    await raise_epoch(idle_probe)
    await relay_all(idle_probe)
    assert await published_positions(idle_probe) == [("NASA", 1, 1), ("NASA", 1, 2), ("NASA", 2, 2), ("NASA", 2, 3)]


async def test_a_raised_epoch_leaves_alone_what_is_on_its_topic_already(
    idle_probe: RunningService, probe_process: ProbeStarter
) -> None:
    """The backup was made, or the relay died, between Kafka's acknowledgment and the delete."""
    await write(idle_probe, "NASA", "one", "two")
    dying = await probe_process("relay", dies_before="delete")
    async with asyncio.timeout(30):
        assert await dying.wait() == -9
    await write(idle_probe, "NASA", "three")

    await eventually(lambda: nobody_leads(idle_probe))
    await raise_epoch(idle_probe)
    await relay_all(idle_probe)
    positions = await published_positions(idle_probe)
    assert positions == [("NASA", 1, 1), ("NASA", 1, 2), ("NASA", 1, 1), ("NASA", 1, 2), ("NASA", 2, 3)]


async def test_a_server_that_has_taken_over_is_checked_before_anything_from_it_is_published(
    idle_probe: RunningService,
) -> None:
    database = idle_probe.runtime.database
    await write(idle_probe, "NASA", "one", "two")
    async with relaying(idle_probe) as relay:
        await eventually(lambda: outbox_is_empty(idle_probe))
        await lose_commits(idle_probe)
        assert database.server is not None
        database.server += timedelta(seconds=1)  # what a new connection finds out when another server answers
        await write(idle_probe, "NASA", "another two")
        for one in relay._lanes:
            one._wakeup.wake()
        assert "it was restored" in await eventually(lambda: held(relay))
    assert len(await idle_probe.published(SeatAssigned)) == 2


async def test_a_record_of_another_program_holds_nothing_up_once_an_operator_has_passed_it(
    idle_probe: RunningService,
) -> None:
    """It has the id of a position to come. A record with a foreign id does not count as the service's event at all."""
    await write(idle_probe, "NASA", "one")
    await relay_all(idle_probe)
    (ours,) = await idle_probe.published(SeatAssigned)
    odd = ours.envelope._replace(sequence=1_000, id="of another program")
    await idle_probe.producer.put(odd, seat("NASA", "odd"))
    await write(idle_probe, "DOE", "one")
    await relay_all(idle_probe)

    foreign = ours.envelope._replace(sequence=1_000, id=event_id(TOPIC, "NASA", 1, 1_000))
    await idle_probe.producer.put(foreign, seat("NASA", "foreign"))
    await write(idle_probe, "EPA", "one")
    async with relaying(idle_probe) as relay:
        said = await eventually(lambda: held(relay))
        assert "NASA has an event at epoch 1, sequence 1000" in said
        named = re.search(r"\((\S+)\[(\d+)\]@(\d+)\)", said)
        assert named is not None
        topic, partition, offset = named.groups()
        order = {"offset": int(offset), "reason": "written by a tool, see ticket 4714"}
        passed = await idle_probe.client.post(f"/v1/partitions/{topic}/{partition}/pass", json=order)
        assert passed.status_code == 200, passed.text
        await eventually(lambda: outbox_is_empty(idle_probe))
        await eventually(lambda: relay.held is None)
    assert ("EPA", 1, 1) in await published_positions(idle_probe)
    audited = await idle_probe.admin.fetch("select command, subject, reason from audit order by id")
    passing = ("PassRecord", f"{TOPIC}[{partition}]@{offset}", order["reason"])
    assert [tuple(each) for each in audited] == [("HoldDeadlines", None, None), passing]

    await lose_commits(idle_probe)
    async with relaying(idle_probe) as relay:
        assert "DOE has an event at epoch 1, sequence 1" in await eventually(lambda: held(relay))


async def published_positions(probe: RunningService) -> list[tuple[str, int, int]]:
    published = await probe.published(SeatAssigned)
    return [(e.envelope.agency_id, e.envelope.epoch, e.envelope.sequence) for e in published]


async def held(relay: Relay) -> str | None:
    return relay.held


async def test_what_is_on_its_topic_already_is_found_in_an_outbox_of_any_size(idle_probe: RunningService) -> None:
    """The topic has events of three runs; another of its positions was assigned a second time."""
    now = idle_probe.clock.now()
    event = seat("NASA", "a")
    first = await idle_probe.admin.fetchval(
        """
        with run as (
            insert into outbox (
                topic, agency_id, epoch, first_sequence, type, time, correlation_id, recorded_at, events, payloads
            )
            select
                $1, 'NASA', 1, 500 * number + 1, 'seat.assigned', $2, 'cor_' || number, $2, 500,
                array_fill($3::bytea, '{500}')
            from generate_series(0, 399) as number
            returning id
        )
        select min(id) from run
        """,
        *(TOPIC, now, event.__pydantic_serializer__.to_json(event)),
    )
    (envelope,) = await idle_probe.publish(event, time=now)
    for sequence, correlation_id in ((1, "cor_0"), (700, "cor_1"), (1_001, "cor_1"), (199_999, "cor_399")):
        published = envelope._replace(
            sequence=sequence, id=event_id(TOPIC, "NASA", 1, sequence), correlation_id=correlation_id
        )
        await idle_probe.producer.put(published, event)
    settings = idle_probe.runtime.settings
    tracemalloc.start()
    found = await published_runs(idle_probe.runtime.database, kafka_at(settings.kafka_bootstrap), settings.topic_prefix)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == {first: 1, first + 1: 1, first + 399: 1}
    assert peak < 5_000_000

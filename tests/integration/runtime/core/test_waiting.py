"""What keeps the consumer waiting, and whom: a held lock, damaged rows, a record that the client cannot read."""

import asyncio
import re

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from muster_local.servers import kafka_at
from muster_operator.topics import connect
from muster_runtime.messaging.producers import partition_of
from muster_runtime.settings import Settings
from tests.integration.runtime.core.conftest import put_unreadable
from tests.integration.runtime.core.looks import seat
from tests.integration.runtime.core.probe.service import build
from tests.integration.runtime.core.streams import TOPIC, effects, holds, last_sequence, parked, readiness
from tests.support.eventually import eventually
from tests.support.services import PARTITIONS, RunningService, ServiceRunner


async def test_an_agency_whose_lock_is_held_elsewhere_waits_alone(probe: RunningService) -> None:
    """An operator has forgotten a transaction; DOE is not in the partition of the two locked agencies."""
    async with probe.admin.transaction():
        await probe.admin.execute("select lock_agencies('{NASA,EPA}')")
        await probe.publish(seat("NASA", "a"), seat("EPA", "a"), seat("DOE", "a"))
        await eventually(lambda: holds(elsewhere(probe, "DOE"), ["a"]))
        await probe.publish(seat("DOE", "b"), seat("NASA", "b"))
        await eventually(lambda: holds(elsewhere(probe, "DOE"), ["a", "b"]))
        assert await elsewhere(probe, "NASA") == []
    await eventually(lambda: holds(effects(probe, "NASA"), ["a", "b"]))
    await eventually(lambda: holds(effects(probe, "EPA"), ["a"]))
    assert await parked(probe, "NASA") is None


async def test_an_agency_whose_rows_cannot_be_read_waits_alone(probe: RunningService) -> None:
    """The test raises the error with which Postgres reports a damaged page."""
    await probe.admin.execute(
        """
        create function damaged() returns trigger language plpgsql as $$
        begin
            raise exception 'invalid page in block 0' using errcode = 'data_corrupted';
        end $$;
        create trigger damaged before insert on effect for each row when (new.agency_id = 'NASA')
        execute function damaged();
        """
    )
    await probe.publish(seat("NASA", "a"), seat("DOE", "a"), seat("DOE", "b"))
    await eventually(lambda: holds(effects(probe, "DOE"), ["a", "b"]))
    assert await parked(probe, "NASA") is None
    await probe.admin.execute("drop function damaged cascade")
    await eventually(lambda: holds(effects(probe, "NASA"), ["a"]))


async def test_a_record_that_the_client_cannot_read_costs_no_other_partition_a_record(
    run_service: ServiceRunner,
) -> None:
    """A header's name is not UTF-8; the error discards what the client had fetched from other partitions."""
    probe = await run_service(build, Settings, consumer_stuck_seconds=2)
    await probe.publish(seat("NASA", "a"))
    await eventually(lambda: holds(effects(probe, "NASA"), ["a"]))
    await put_unreadable(probe, "NASA")
    for number in range(20):
        await probe.publish(seat("DOE", f"{number}"))
    await eventually(lambda: holds(effects(probe, "DOE"), [f"{number}" for number in range(20)]))
    assert await parked(probe, "DOE") is None
    await eventually(lambda: _tells(probe, "cannot be read: UnicodeDecodeError"))
    ended, _ = await asyncio.wait([probe.process.failed], timeout=4)
    assert not ended  # it is not the client's fault


async def test_an_operator_lets_the_consumer_past_a_record_that_it_cannot_decode(probe: RunningService) -> None:
    await probe.publish(seat("NASA", "a"), seat("NASA", "b"))
    await put_unreadable(probe, "NASA")
    await probe.publish(seat("NASA", "c"))
    await eventually(lambda: holds(effects(probe, "NASA"), ["a", "b"]))
    partition = partition_of(b"NASA", PARTITIONS)
    named = f"{probe.topic_prefix}{TOPIC}[{partition}]@2 cannot be read: UnicodeDecodeError"
    await eventually(lambda: _tells(probe, named))

    ordered = {"offset": 2, "reason": "damaged on its way, see ticket 4711"}
    for _ in range(2):
        reply = await probe.client.post(f"/v1/partitions/{TOPIC}/{partition}/pass", json=ordered)
        assert reply.json() == {"topic": TOPIC, "partition": partition, "first_offset": 2, "last_offset": 2}
    await eventually(lambda: holds(effects(probe, "NASA"), ["a", "b", "c"]))
    await eventually(lambda: holds(readiness(probe), []))
    (audited,) = await probe.admin.fetch("select command, subject, reason, actor from audit")
    assert tuple(audited) == ("PassRecord", f"{TOPIC}[{partition}]@2", ordered["reason"], "operator")

    # Nothing needs to follow a record that is passed.
    await put_unreadable(probe, "NASA")

    async def named_offsets() -> list[str]:
        return re.findall(r"@(\d+) cannot be read", "".join(await readiness(probe)))

    (waiting,) = await eventually(named_offsets)
    path = f"/v1/partitions/{TOPIC}/{partition}/pass"
    assert (await probe.client.post(path, json=ordered | {"offset": int(waiting)})).status_code == 200
    await eventually(lambda: holds(readiness(probe), []))


async def test_no_order_passes_a_record_that_can_be_read(probe: RunningService) -> None:
    ordered = {"offset": 0, "last_offset": 5, "reason": "the wrong partition"}
    reply = await probe.client.post(f"/v1/partitions/{TOPIC}/{partition_of(b'NASA', PARTITIONS)}/pass", json=ordered)
    assert reply.status_code == 200
    await probe.publish(seat("NASA", "a"), seat("NASA", "b"))
    await eventually(lambda: holds(effects(probe, "NASA"), ["a", "b"]))


@pytest.mark.parametrize(
    ("topic", "body", "status", "said"),
    [
        ("muster.billing.term", {"offset": 1}, 404, "neither reads nor writes the topic"),
        (TOPIC, {"offset": 2, "last_offset": 1}, 422, "last_offset: 1 is invalid"),
        (TOPIC, {"offset": 2**63}, 422, "offset"),
    ],
)
async def test_an_order_to_pass_that_makes_no_sense_is_refused(
    idle_probe: RunningService, topic: str, body: dict[str, int], status: int, said: str
) -> None:
    reply = await idle_probe.client.post(f"/v1/partitions/{topic}/0/pass", json={**body, "reason": "no reason"})
    assert (reply.status_code, said in reply.text) == (status, True)


async def test_a_new_group_waits_quietly_at_a_partition_that_was_emptied(
    idle_probe: RunningService, run_service: ServiceRunner
) -> None:
    """By an operator's delete-records: the record at which the client would begin is gone."""
    await idle_probe.publish(seat("NASA", "a"), seat("NASA", "b"))
    partition = TopicPartition(idle_probe.topic_prefix + TOPIC, partition_of(b"NASA", PARTITIONS))
    async with connect(kafka_at(idle_probe.runtime.settings.kafka_bootstrap)) as admin:
        await admin.delete_records({partition: RecordsToDelete(2)})
    probe = await run_service(build, Settings, beside=idle_probe, consumer_stuck_seconds=1)
    await eventually(lambda: holds(readiness(probe), []))
    ended, _ = await asyncio.wait([probe.process.failed], timeout=3)
    assert not ended
    assert probe.process.consumer is not None
    assert await probe.process.consumer.lag() == 0


async def test_an_error_that_no_event_is_to_blame_for_is_outlasted(probe: RunningService) -> None:
    """Even one that nobody has thought of: the tables of effects and of parked events are both missing."""
    await probe.admin.execute("alter table effect rename to effect_away")
    await probe.admin.execute("alter table parked_event rename to parked_event_away")
    await probe.publish(seat("NASA", "a"), seat("NASA", "b"))
    await eventually(lambda: _complains(probe))
    await probe.admin.execute("alter table parked_event_away rename to parked_event")
    await probe.admin.execute("alter table effect_away rename to effect")
    await eventually(lambda: holds(effects(probe, "NASA"), ["a", "b"]))
    assert await last_sequence(probe, "NASA") == 2


async def elsewhere(probe: RunningService, agency_id: str) -> list[str]:
    """The effects, read over a connection that is in no transaction."""
    rows = await probe.runtime.database.pool.fetch(
        "select seat_id from effect where agency_id = $1 order by id", agency_id
    )
    return [row["seat_id"] for row in rows]


async def _tells(probe: RunningService, reason: str) -> bool:
    assert any(reason in said for said in await readiness(probe))
    return True


async def _complains(probe: RunningService) -> bool:
    reasons: list[str] = (await probe.client.get("/health/ready")).json()["reasons"]
    return any("cannot apply" in reason for reason in reasons)

"""Consumers come and go, freeze, are slow, or cannot apply an event: each event has its effect once, in order."""

import asyncio
import signal
import time
from datetime import UTC, datetime

import psutil
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from muster_contracts import Envelope, event_id, source_of, write_headers
from muster_contracts.entitlements import SeatAssigned
from muster_local.servers import kafka_at
from muster_runtime.messaging.consumer.subscription import SESSIONS_MS
from muster_runtime.messaging.producers import partition_of
from tests.faults.field import PARTITIONS, Field
from tests.faults.findings import Findings
from tests.faults.probe.service import TOPIC
from tests.faults.servers import Process
from tests.faults.traffic import AGENCIES
from tests.support.eventually import eventually
from tests.support.topics import Reader

pytestmark = pytest.mark.drill

GRACE_SECONDS = 30

# Less and more time than a running batch may take at a shutdown.
SHORT, LONG = 3, 20

# The longest that a broker may ask for.
SESSION_SECONDS = SESSIONS_MS[-1] / 1000


async def test_14_in_a_storm_of_rebalances_positions_only_grow(field: Field, findings: Findings) -> None:
    await field.serve("relay", "consumer")
    watch = asyncio.create_task(_positions_only_grow(field))
    members: list[Process] = []
    farewells: list[signal.Signals] = []
    async with field.live_traffic():
        for turn in range(9):
            members.append(field.start("consumer"))
            await asyncio.sleep(2)
            if turn >= 3:
                leaving = members.pop(0)
                await field.ready(leaving)  # it has joined
                farewells.append(field.dice.choice([signal.SIGTERM, signal.SIGKILL]))
                leaving.send(farewells[-1])
        findings.fault_is_over()
    await field.at_rest(timeout=90)
    killed = farewells.count(signal.SIGKILL)
    findings.recovered(f"of {len(farewells)} members that had joined, {killed} were killed, the others left")
    watch.cancel()
    (fell,) = await asyncio.gather(watch, return_exceptions=True)
    assert isinstance(fell, asyncio.CancelledError), fell
    assert await field.differences() == []


async def _positions_only_grow(field: Field) -> None:
    connection = await field.connect()
    before: dict[str, int] = {}
    while True:
        after = dict(await connection.fetch("select agency_id, last_sequence from applied"))
        for agency_id, sequence in before.items():
            assert after.get(agency_id, 0) >= sequence, f"{agency_id} fell from {sequence} to {after.get(agency_id)}"
        before = after
        await asyncio.sleep(0.05)


async def test_15_a_consumer_stopped_past_its_session_applies_nothing_twice(field: Field, findings: Findings) -> None:
    await field.serve("relay")
    zombie = field.start("consumer", breaking=["--stop-before", "last sequence", "--nth", "3"])
    await field.ready(zombie)
    traffic = asyncio.create_task(field.traffic(150, agencies=["NASA"], at_once=2))
    await eventually(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_STOPPED, timeout=60)
    heir = field.start("consumer")
    await field.ready(heir, timeout=SESSION_SECONDS + 60)
    await eventually(lambda: heir.logged("partition_paused"))
    assert {line["agency_id"] for line in heir.logged("partition_paused")} == {"NASA"}
    applied = await field.effects("NASA")
    flowing = [agency_id for agency_id in AGENCIES if _partition(agency_id) != _partition("NASA")]
    for agency_id in flowing:
        await field.assign_seats(agency_id, "while NASA's partition waits")
        await eventually(lambda: field.is_applied(agency_id))  # noqa: B023 - awaited within the turn
    assert await field.effects("NASA") == applied
    zombie.send(signal.SIGCONT)
    findings.fault_is_over()
    await traffic
    await field.at_rest()
    findings.recovered(f"the partition of NASA waited; {' and '.join(flowing)} continued")
    assert await field.differences() == []


def _partition(agency_id: str) -> int:
    return partition_of(agency_id.encode(), PARTITIONS)


@pytest.mark.parametrize("seconds", [SHORT, LONG], ids=["if_the_batch_ends_in_time", "if_the_batch_takes_too_long"])
async def test_16_after_sigterm_in_mid_batch_no_offset_is_committed_beyond_the_applied_events(
    field: Field, findings: Findings, seconds: int
) -> None:
    await field.serve("relay")
    consumer = field.start("consumer")
    await field.ready(consumer)
    await field.trouble("NASA", "slow", seconds=seconds)
    await field.traffic(30)
    await field.assign_seats("NASA", "slow")
    await eventually(field.handler_sleeps, timeout=30)
    took = await asyncio.to_thread(consumer.stop, GRACE_SECONDS)
    assert consumer.exit_status == 0
    applied = "slow" in await field.effects("NASA")
    assert applied == (seconds == SHORT)
    assert await _committed_beyond_effects(field) == []
    findings.fault_is_over()
    await field.no_more_trouble()
    field.start("consumer")
    await field.at_rest()
    findings.recovered(f"ended {took:.1f} s after SIGTERM, its batch {'applied' if applied else 'rolled back'}")
    assert await field.differences() == []


async def _committed_beyond_effects(field: Field) -> list[str]:
    """Records below the group's committed offsets, of which there must be some, that have not been applied."""
    admin = AIOKafkaAdminClient(**kafka_at(field.bootstrap).options())
    await admin.start()
    offsets = await admin.list_consumer_group_offsets(f"{field.prefix}probe")
    await admin.close()
    applied = {
        (row["agency_id"], row["sequence"]) for row in await field.admin.fetch("select agency_id, sequence from effect")
    }
    async with Reader(field.kafka, field.prefix, [TOPIC]) as reader:
        records = await reader.records()
    committed = {(topic.topic, topic.partition): offset.offset for topic, offset in offsets.items()}
    assert sum(committed.values()) > 0
    return [
        f"{record.topic}[{record.partition}]@{record.offset}"
        for record in records
        if record.offset < committed.get((record.topic, record.partition), 0)
        and ((record.key or b"").decode(), int(dict(record.headers)["ce_sequence"])) not in applied
    ]


async def test_17_a_handler_that_outlives_the_poll_interval_loses_its_place_and_the_lag_recovers(
    field: Field, findings: Findings
) -> None:
    await field.serve("relay")
    first = field.start("consumer", breaking=["--max-poll-interval", "3000"])
    await field.ready(first)
    await field.traffic(10)
    await field.at_rest()
    await field.trouble("NASA", "slow", seconds=12)
    await field.assign_seats("NASA", "slow")
    await eventually(field.handler_sleeps, timeout=30)
    second = field.start("consumer")
    findings.fault_is_over()
    # The second one gets the first one's partitions once the group expels the first, and serves the other agencies.
    await field.traffic(20, agencies=[agency for agency in AGENCIES if agency != "NASA"])
    await field.at_rest()
    lost = await eventually(lambda: first.logged("offset_commit_lost"))
    findings.recovered(f"the slow member's commit was refused: {lost[0]['error'].partition('(')[0]}")
    assert "CommitFailedError" in lost[0]["error"]  # by the group, which had expelled the member
    assert first.runs
    assert second.runs
    assert await field.differences() == []


async def test_18_poison_parks_its_agency_alone_and_the_others_stay_quick(field: Field, findings: Findings) -> None:
    await field.serve("relay", "consumer")
    await field.traffic(10)
    await field.at_rest()
    await field.trouble("NASA", "poison")
    await field.assign_seats("NASA", "before", "poison", "behind")
    await eventually(lambda: field.parked("NASA"))
    slowest = 0.0
    for number in range(30):
        agency_id = field.dice.choice(AGENCIES[1:])
        asked = time.monotonic()
        await asyncio.gather(
            field.assign_seats(agency_id, f"quick-{number}"), field.assign_seats("NASA", f"later-{number}")
        )
        await eventually(lambda: field.is_applied(agency_id))  # noqa: B023 - awaited within the turn
        slowest = max(slowest, time.monotonic() - asked)
    assert slowest < 5
    assert await field.parked("NASA")

    findings.fault_is_over()
    await field.no_more_trouble()
    assert await field.replay("NASA") == {"parked": False, "reason": None}
    await field.at_rest()
    findings.recovered(f"another agency's slowest effect took {slowest * 1000:.0f} ms")
    assert await field.differences() == []


async def test_19_a_replay_killed_half_way_during_live_traffic_keeps_the_order(
    field: Field, findings: Findings
) -> None:
    await field.serve("relay")
    consumer = field.start("consumer", breaking=["--die-before", "unpark", "--nth", "2"])
    await field.ready(consumer)
    await field.trouble("NASA", "poison")
    await field.assign_seats("NASA", "poison")
    for number in range(12):
        await field.assign_seats("NASA", *(f"behind-{number}-{part}" for part in range(100)))
    await eventually(lambda: field.parked("NASA"))
    await field.until_drained()
    await field.no_more_trouble()
    async with field.live_traffic():
        await field.replay("NASA", by=consumer)
        await field.until_dead(consumer)
        left = await field.admin.fetchval("select count(*) from parked_event")
        assert left > 0
        assert await field.parked("NASA")

        findings.fault_is_over()
        heir = field.start("consumer")
        await field.ready(heir)
        assert await field.replay("NASA", by=heir) == {"parked": False, "reason": None}
    await field.at_rest()
    findings.recovered(f"{left} records still waited when the replay died")
    assert await field.differences() == []


async def test_20_what_cannot_be_read_is_parked_raw_and_never_skipped(field: Field, findings: Findings) -> None:
    await field.serve("relay")
    consumer = field.start("consumer")
    await field.ready(consumer)
    producer = await field.producer()
    junk = b"\xff\xfe not an event"
    await producer.put_raw(TOPIC, key=b"USAID", value=junk, headers=[("ce_id", b"\xff")])
    newer = dict(write_headers(_envelope("NSF", 1)))
    newer["ce_type"] = b"muster.entitlements.SeatAssigned.v9"
    await producer.put_raw(TOPIC, key=b"NSF", value=b"{}", headers=list(newer.items()))
    for agency_id, sequence in (("USAID", 1), ("USAID", 2), ("NSF", 2), ("NSF", 3)):
        seat = SeatAssigned(agency_id=agency_id, seat_id=f"seat-{sequence}", subject_ref=f"sub_{sequence}")
        await producer.put(_envelope(agency_id, sequence), seat)
    await field.traffic(10)
    await field.at_rest()
    await eventually(lambda: field.parked("USAID"))
    await eventually(lambda: field.parked("NSF"))
    assert await field.effects("USAID") == []
    assert await field.effects("NSF") == []

    consumer.kill()
    heir = field.start("consumer")
    await field.ready(heir)
    findings.fault_is_over()
    kept = await field.admin.fetch(
        "select agency_id, value from parked_event where value in ($1, $2) order by 1", junk, b"{}"
    )
    assert [tuple(row) for row in kept] == [("NSF", b"{}"), ("USAID", junk)]
    for agency_id in ("USAID", "NSF"):
        await field.discard(agency_id, "not of our making", by=heir)
        await field.replay(agency_id, by=heir)
    assert await field.effects("USAID") == ["seat-1", "seat-2"]
    assert await field.effects("NSF") == ["seat-2", "seat-3"]
    findings.recovered("an operator discarded two records, with a reason that the audit trail keeps")
    assert await field.admin.fetchval("select count(*) from audit where command = 'DiscardParkedRecord'") == 2


def _envelope(agency_id: str, sequence: int) -> Envelope:
    return Envelope(
        id=event_id(TOPIC, agency_id, 1, sequence),
        source=source_of(TOPIC),
        type=SeatAssigned.event_type,
        time=datetime(2026, 1, 1, tzinfo=UTC),
        agency_id=agency_id,
        epoch=1,
        sequence=sequence,
        correlation_id="cor_1",
    )

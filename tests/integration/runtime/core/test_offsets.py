"""Where a consumer continues: where its database says, which may have gone back; and how a gap is filled."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import count, islice

from muster_contracts import Envelope
from muster_contracts.entitlements import PersonRecorded, SeatAssigned
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.messaging.events import Received
from muster_runtime.process.roles import Role
from muster_runtime.service import Service
from muster_runtime.settings import Settings
from tests.integration.runtime.core.conftest import discard
from tests.integration.runtime.core.probe.service import build
from tests.integration.runtime.core.relays import partition
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner

# The tables that a failover to a lagging replica, or a restore, takes back together.
STATE = ("effect", "applied", "consumed_partition", "parked_stream", "parked_event")


def seat(agency_id: str, seat_id: str) -> SeatAssigned:
    return SeatAssigned(agency_id=agency_id, seat_id=seat_id, subject_ref="sub_1")


async def seats(probe: RunningService, agency_id: str) -> list[str]:
    rows = await probe.admin.fetch("select seat_id from effect where agency_id = $1 order by id", agency_id)
    return [row["seat_id"] for row in rows]


async def have(probe: RunningService, agency_id: str, *expected: str) -> bool:
    found = await seats(probe, agency_id)
    assert found == list(expected), found
    return True


async def flows(probe: RunningService, agency_id: str) -> bool:
    return not await is_parked(probe, agency_id)


async def is_parked(probe: RunningService, agency_id: str) -> bool:
    parked: bool = await probe.admin.fetchval(
        "select exists (select from parked_stream where agency_id = $1)", agency_id
    )
    return parked


async def kept(probe: RunningService, offset: int) -> bool:
    found = await probe.admin.fetchval("select sum(next_offset) from consumed_partition")
    assert found == offset, found
    return True


async def remember(probe: RunningService) -> None:
    """Keep a copy of what the database holds now."""
    for table in STATE:
        await probe.admin.execute(f"create table copy_of_{table} as table {table}")


async def go_back(probe: RunningService) -> None:
    """Restore what the database held then, as if what came later had never reached it."""
    async with probe.admin.transaction():
        await probe.admin.execute(f"lock table {', '.join(STATE)} in access exclusive mode")
        for table in STATE:
            await probe.admin.execute(f"delete from {table}")
            overriding = "overriding system value" if table in ("effect", "parked_event") else ""
            await probe.admin.execute(f"insert into {table} {overriding} table copy_of_{table}")


async def with_lost_commits(probe: RunningService) -> None:
    """Apply two events of NASA and one of DOE; the copy to go back to is from before the last two."""
    await probe.publish(seat("NASA", "a"))
    await eventually(lambda: have(probe, "NASA", "a"))
    await eventually(lambda: kept(probe, 1))
    await remember(probe)
    await probe.publish(seat("NASA", "b"), seat("DOE", "x"))
    await eventually(lambda: have(probe, "NASA", "a", "b"))
    await eventually(lambda: have(probe, "DOE", "x"))
    await eventually(lambda: kept(probe, 3))


async def test_a_running_consumer_reads_again_what_its_database_has_lost(probe: RunningService) -> None:
    """No new event arrives that would reveal the loss."""
    await with_lost_commits(probe)
    await go_back(probe)
    assert await seats(probe, "NASA") == ["a"]
    await eventually(lambda: have(probe, "NASA", "a", "b"))
    await eventually(lambda: have(probe, "DOE", "x"))


async def test_what_comes_after_a_loss_neither_hides_it_nor_stays_parked(probe: RunningService) -> None:
    await with_lost_commits(probe)
    await go_back(probe)
    await probe.publish(seat("NASA", "c"))
    await eventually(lambda: have(probe, "NASA", "a", "b", "c"))
    await eventually(lambda: have(probe, "DOE", "x"))
    await eventually(lambda: flows(probe, "NASA"))


async def keep_persons(uow: UnitOfWork, events: Sequence[Received[PersonRecorded]]) -> None:
    await uow.connection.execute(
        """
        insert into effect (agency_id, event_id, sequence, seat_id)
        select * from unnest($1::text[], $2::text[], $3::bigint[], $4::text[])
        """,
        [event.envelope.agency_id for event in events],
        [event.envelope.id for event in events],
        [event.envelope.sequence for event in events],
        [event.data.subject_ref for event in events],
    )


def build_directory(settings: Settings) -> Service:
    """The probe as a reader of a compacted topic."""
    return replace(build(settings), subscriptions={PersonRecorded: keep_persons})


async def test_what_comes_after_a_loss_does_not_hide_it_on_a_compacted_topic(run_service: ServiceRunner) -> None:
    """Holes in its streams are not gaps: what was lost would be taken for compacted, and later for repeated."""
    probe = await run_service(build_directory, Settings)
    names = (f"sub_{number}" for number in count())
    persons = (PersonRecorded(agency_id="NASA", subject_ref=name, name="Ada", email="ada@nasa.gov") for name in names)
    first, second, third = islice((each for each in persons if partition(each.record_key) == 0), 3)
    await probe.publish(first)
    await eventually(lambda: kept(probe, 1))
    await remember(probe)
    await probe.publish(second)
    await eventually(lambda: kept(probe, 2))
    await go_back(probe)
    await probe.publish(third)
    await eventually(lambda: have(probe, "NASA", first.subject_ref, second.subject_ref, third.subject_ref))


async def test_a_new_consumer_begins_where_the_database_says_and_not_where_kafka_does(
    run_service: ServiceRunner,
) -> None:
    probe = await run_service(build, Settings)
    await with_lost_commits(probe)
    consumer = probe.process.consumer
    assert consumer is not None
    await consumer.stop()
    await go_back(probe)
    await run_service(build, Settings, roles=frozenset({Role.CONSUMER}), beside=probe)
    await eventually(lambda: have(probe, "NASA", "a", "b"))
    await eventually(lambda: have(probe, "DOE", "x"))


async def parked_for_a_gap(probe: RunningService) -> Envelope:
    """The second and third events of NASA are missing, the fourth and fifth wait; returns the first's envelope."""
    (first,) = await probe.publish(seat("NASA", "1"))
    for sequence in (4, 5):
        await probe.producer.put(at(first, sequence), seat("NASA", f"{sequence}"))
    await eventually(lambda: is_parked(probe, "NASA"))
    return first


def at(first: Envelope, sequence: int) -> Envelope:
    return first._replace(sequence=sequence, id=f"{first.id}-{sequence}")


async def test_a_stream_that_is_parked_for_a_gap_continues_when_the_missing_events_arrive(
    probe: RunningService,
) -> None:
    first = await parked_for_a_gap(probe)
    await probe.producer.put(at(first, 2), seat("NASA", "2"))
    await eventually(lambda: have(probe, "NASA", "1", "2"))
    assert await is_parked(probe, "NASA")
    await probe.producer.put(at(first, 7), seat("NASA", "7"))
    await probe.producer.put(at(first, 3), seat("NASA", "3"))
    await eventually(lambda: have(probe, "NASA", "1", "2", "3", "4", "5"))
    await eventually(lambda: waits(probe, 1, "gap: sequence 6 was expected, but 7 arrived"))
    await probe.producer.put(at(first, 6), seat("NASA", "6"))
    await eventually(lambda: have(probe, "NASA", "1", "2", "3", "4", "5", "6", "7"))
    await eventually(lambda: flows(probe, "NASA"))
    audited = await probe.admin.fetch("select command, actor from audit order by id")
    assert {tuple(row) for row in audited} == {("ReplayParkedStream", "probe")}


async def test_a_refused_event_behind_a_gap_parks_the_stream_for_good(probe: RunningService) -> None:
    (first,) = await probe.publish(seat("NASA", "1"))
    await probe.producer.put(at(first, 3), seat("NASA", "poison"))
    await eventually(lambda: is_parked(probe, "NASA"))
    await probe.producer.put(at(first, 2), seat("NASA", "2"))

    await eventually(lambda: waits(probe, 1, "Conflict: the seat is poison: sub_1"))
    await probe.producer.put(at(first, 4), seat("NASA", "4"))
    await eventually(lambda: waits(probe, 2, "Conflict: the seat is poison: sub_1"))
    assert await seats(probe, "NASA") == ["1", "2"]
    assert not await probe.admin.fetchval("select gap from parked_stream")


async def test_a_gap_is_filled_by_an_event_in_the_same_batch(
    idle_probe: RunningService, run_service: ServiceRunner
) -> None:
    (first,) = await idle_probe.publish(seat("NASA", "1"))
    for sequence in (3, 2):
        await idle_probe.producer.put(at(first, sequence), seat("NASA", f"{sequence}"))
    await run_service(build, Settings, roles=frozenset({Role.CONSUMER}), beside=idle_probe)
    await eventually(lambda: have(idle_probe, "NASA", "1", "2", "3"))
    await eventually(lambda: flows(idle_probe, "NASA"))


async def test_what_waits_behind_a_gap_is_known_once_a_new_epoch_has_begun_before_it(probe: RunningService) -> None:
    (first,) = await probe.publish(seat("NASA", "1"))
    await probe.producer.put(at(first, 5), seat("NASA", "of the epoch before"))
    await eventually(lambda: is_parked(probe, "NASA"))
    await probe.producer.put(at(first, 2)._replace(epoch=2), seat("NASA", "2"))
    await eventually(lambda: have(probe, "NASA", "1", "2"))
    await eventually(lambda: flows(probe, "NASA"))


async def test_a_refused_event_in_a_gap_becomes_the_reason_for_the_parked_stream(probe: RunningService) -> None:
    (first,) = await probe.publish(seat("NASA", "1"))
    await probe.producer.put(at(first, 3), seat("NASA", "3"))
    await eventually(lambda: is_parked(probe, "NASA"))
    await probe.producer.put(at(first, 2), seat("NASA", "poison"))
    await eventually(lambda: waits(probe, 2, "Conflict: the seat is poison: sub_1"))
    (parked,) = await probe.admin.fetch("select gap, refused from parked_stream")
    assert tuple(parked) == (False, True)


async def test_a_full_stream_takes_the_event_that_fills_its_gap_though_more_follow_it(
    run_service: ServiceRunner,
) -> None:
    probe = await run_service(build, Settings, parked_records=3, consumer_batch_records=3)
    (first,) = await probe.publish(seat("NASA", "1"))
    for sequence in (3, 4, 5):
        await probe.producer.put(at(first, sequence), seat("NASA", f"{sequence}"))
    await eventually(lambda: waits(probe, 3, "gap: sequence 2 was expected, but 3 arrived"))
    async with probe.admin.transaction():
        await probe.admin.execute("select lock_agencies('{NASA}')")  # so that they arrive in one batch
        for sequence in (2, 6, 8, 7):
            await probe.producer.put(at(first, sequence), seat("NASA", f"{sequence}"))
        await eventually(lambda: queues(probe, 1))
    await eventually(lambda: have(probe, "NASA", "1", "2", "3", "4", "5", "6", "7", "8"))
    await eventually(lambda: flows(probe, "NASA"))


async def test_a_gap_that_an_operators_replay_meets_is_noted_before_the_next_record_is_taken(
    probe: RunningService,
) -> None:
    first, _ = await probe.publish(seat("NASA", "1"), seat("NASA", "poison"))
    for sequence in (3, 5):
        await probe.producer.put(at(first, sequence), seat("NASA", f"{sequence}"))
    await eventually(lambda: waits(probe, 3, "Conflict: the seat is poison: sub_1"))
    assert (await discard(probe, "NASA")).json() == {"left": 2}
    async with probe.admin.transaction():
        await probe.admin.execute("select lock_agencies('{NASA}')")
        replay = asyncio.create_task(probe.client.post(f"/v1/parked/{SeatAssigned.topic}/NASA/replay"))
        await eventually(lambda: queues(probe, 1))
        await probe.producer.put(at(first, 4), seat("NASA", "4"))
        await eventually(lambda: queues(probe, 2))
    assert (await replay).json() == {"parked": True, "reason": "gap: sequence 4 was expected, but 5 arrived"}
    await eventually(lambda: have(probe, "NASA", "1", "3", "4", "5"))
    await eventually(lambda: flows(probe, "NASA"))


async def queues(probe: RunningService, transactions: int) -> bool:
    """This many transactions wait for an agency's lock: Postgres grants it in the order of their arrival."""
    waiting = await probe.admin.fetchval(
        """
        select count(*)
        from pg_locks as l join pg_database as d on d.oid = l.database
        where d.datname = current_database() and l.locktype = 'advisory' and not l.granted
        """
    )
    assert waiting == transactions
    return True


async def waits(probe: RunningService, records: int, reason: str) -> bool:
    found = await probe.admin.fetchrow("select records, reason from parked_stream where agency_id = 'NASA'")
    assert tuple(found or ()) == (records, reason)
    return True

"""The example that keeps a table in step, killed at any moment."""

import asyncio
import importlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import pytest

from muster_contracts.entitlements import SeatAssigned
from muster_contracts.testing import Record, build, record
from tests.contract.subscribers.examples import (
    AGENCIES,
    EXAMPLES,
    Topic,
    interleaved,
    python,
    seats,
    typed,
)
from tests.support.eventually import eventually


async def test_a_table_stays_exactly_in_step_however_often_the_subscriber_is_killed(
    topic: Topic, run: Callable[..., Any], database: str
) -> None:
    events, kills, chance = 1000, 4, random.Random(20250806)
    connection = await asyncpg.connect(database)

    async def applied() -> int:
        if not await connection.fetchval("select to_regclass('place')"):
            return 0
        return int(await connection.fetchval("select coalesce(sum(sequence), 0) from place"))

    producing = asyncio.create_task(_produce(topic, events))
    for kill in range(kills):
        until = (kill + 1) * events * len(AGENCIES) // (kills + 2) + chance.randint(0, 200)
        async with run(python("postgres_in_step.py")(), POSTGRES_DSN=database) as subscriber:
            await eventually(_reached(applied, until), timeout=40)
            subscriber.process.kill()
    await producing
    async with run(python("postgres_in_step.py")(), POSTGRES_DSN=database) as subscriber:
        await eventually(_reached(applied, events * len(AGENCIES)), timeout=40)

    counted = await connection.fetch("select agency_id, held, ever_held from seats_of_agency order by agency_id")
    await connection.close()
    assigned = events // 5
    assert [tuple(row) for row in counted] == [(agency, 0, assigned) for agency in sorted(AGENCIES)]


def _reached(applied: Callable[[], Awaitable[int]], wanted: int) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return await applied() >= wanted

    return check


async def test_the_positions_in_a_table_are_bound_to_their_topic(
    topic: Topic,
    run: Callable[..., Any],
    database: str,
    kafka_bootstrap: str,
    topic_prefix: str,
) -> None:
    async with run(python("postgres_in_step.py")(), POSTGRES_DSN=database) as subscriber:
        await eventually(lambda: "connected, waiting" in subscriber.stderr, timeout=40)
    await topic.make_again(kafka_bootstrap, topic_prefix)
    async with run(python("postgres_in_step.py")(), POSTGRES_DSN=database) as subscriber, asyncio.timeout(40):
        await subscriber.process.wait()
    assert subscriber.process.returncode == 1
    assert "facts would be silently skipped" in subscriber.stderr


async def test_a_table_in_step_allows_two_instances_reports_an_epoch_and_refuses_a_huge_number(
    topic: Topic, run: Callable[..., Any], database: str
) -> None:
    connection = await asyncpg.connect(database)

    async def held() -> int:
        return int(await connection.fetchval("select coalesce(sum(ever_held), 0) from seats_of_agency"))

    command = python("postgres_in_step.py")()
    async with (
        run(command, POSTGRES_DSN=database, INSTANCE="one") as one,
        run(command, POSTGRES_DSN=database, INSTANCE="two") as two,
    ):
        await eventually(lambda: "connected, waiting" in one.stderr, timeout=40)
        await eventually(lambda: "connected, waiting" in two.stderr, timeout=40)
        await topic.put(
            [*interleaved(range(1, 31)), record(build(SeatAssigned, agency_id="NIH"), sequence=31, epoch=2)]
        )
        await eventually(_reached(held, 19), timeout=40)
        reported = "NIH: reconcile what came after Position(epoch=1, sequence=30)"
        await eventually(lambda: reported in one.stderr + two.stderr)
        assert one.process.returncode is None
        assert two.process.returncode is None

        huge = record(build(SeatAssigned, agency_id="DOE"), sequence=31)
        huge.headers[:] = [(name, b"9" * 20 if name == "ce_sequence" else value) for name, value in huge.headers]
        await topic.put([huge])
        async with asyncio.timeout(40):
            await asyncio.wait(
                [asyncio.create_task(each.process.wait()) for each in (one, two)], return_when=asyncio.FIRST_COMPLETED
            )
    assert "header ce_sequence is" in one.stderr + two.stderr
    assert "Traceback" not in one.stderr + two.stderr
    assert await held() == 19
    await connection.close()


async def test_a_newer_version_stops_the_subscriber_before_it_is_applied(
    topic: Topic, run: Callable[..., Any], database: str
) -> None:
    newer = record(build(SeatAssigned, agency_id="NASA"), sequence=1)
    await topic.put([typed(newer, "muster.entitlements.SeatAssigned.v2")])
    async with run(python("postgres_in_step.py")(), POSTGRES_DSN=database) as subscriber, asyncio.timeout(40):
        await subscriber.process.wait()
    assert subscriber.process.returncode == 1
    assert "muster.entitlements.SeatAssigned.v2 needs a newer muster-contracts" in subscriber.stderr


@pytest.fixture
def example(database: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example's module, for its own database."""
    monkeypatch.setenv("POSTGRES_DSN", database)
    monkeypatch.syspath_prepend(str(EXAMPLES / "python"))
    return importlib.import_module("postgres_in_step")


async def test_two_instances_that_briefly_share_agencies_wait_without_a_deadlock(database: str, example: Any) -> None:
    batches = [
        [*seats(first, range(1, 4)), *seats(second, range(1, 4))] for first, second in (("A1", "B1"), ("B1", "A1"))
    ]
    connections = [await asyncpg.connect(database) for _ in range(3)]
    await connections[0].execute(example.TABLES)

    async def applied(connection: Any, batch: Sequence[Record]) -> None:
        async with connection.transaction():
            await example.apply(connection, batch)

    held = connections[0].transaction()
    await held.start()
    await connections[0].execute(
        "insert into place select 'muster.entitlements.seat', a, 1, 0 from unnest(array['A1', 'B1']) as a"
    )
    applying = [
        asyncio.create_task(applied(connection, batch))
        for connection, batch in zip(connections[1:], batches, strict=True)
    ]
    waiting = (
        "select count(*) = 2 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(40):
        while not await connections[0].fetchval(waiting):
            await connections[0].execute("select pg_stat_clear_snapshot()")
    await held.commit()
    await asyncio.gather(*applying)
    assert await connections[0].fetchval("select sum(sequence) from place") == 6
    assert await connections[0].fetchval("select sum(ever_held) from seats_of_agency") == 2  # one each, counted once
    for connection in connections:
        await connection.close()


async def test_a_seat_that_is_assigned_again_in_a_new_epoch_is_counted_once(database: str, example: Any) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute(example.TABLES)
    assigned = build(SeatAssigned, agency_id="NASA")
    async with connection.transaction():
        await example.apply(connection, [record(assigned, sequence=1, epoch=epoch) for epoch in (1, 2)])
    counted = await connection.fetch("select held, ever_held from seats_of_agency")
    await connection.close()
    assert [tuple(row) for row in counted] == [(1, 1)]


async def _produce(topic: Topic, events: int) -> None:
    """Fill the streams step by step; each step repeats some records of the previous one."""
    step = 50
    for start in range(1, events + 1, step):
        await topic.put(interleaved(range(max(1, start - 5), start + step)))

"""Stored replies are deleted when they expire: in batches, whatever locks are held, without delaying a command."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from prometheus_client import REGISTRY

from muster_runtime.context import Context
from muster_runtime.database.transactions import Connection
from muster_runtime.database.wakeup import Wakeup
from muster_runtime.http import idempotency
from muster_runtime.scheduling import retention as scheduling_retention
from muster_runtime.scheduling.retention import BATCH_ROWS, ROUND, Purger, Retention
from tests.integration.runtime.http.conftest import Sample
from tests.integration.runtime.http.test_commands import NOTES, key
from tests.support.eventually import eventually

WEEK = timedelta(days=7)


@asynccontextmanager
async def purging(sample: Sample, retention: Retention | None = None) -> AsyncIterator[None]:
    """The purging duty, as a process runs it: of stored replies, unless another retention is given."""
    runtime = sample.app.state.runtime
    wakeup = Wakeup(sample.clock)
    sample.clock.on_move(wakeup.wake)
    retentions = [retention or idempotency.retention(runtime.settings.idempotency_retention_days)]
    duty = asyncio.create_task(Purger(runtime.database, wakeup, sample.clock, retentions, "sample").run())
    try:
        yield
    finally:
        duty.cancel()
        with suppress(asyncio.CancelledError):
            await duty


async def keep_replies(sample: Sample, count: int, age: timedelta) -> None:
    await sample.admin.execute(
        """
        insert into idempotency (agency_id, route, key, body_sha256, status, headers, body, recorded_at)
        select 'NASA', 'POST /', gen_random_uuid()::text, '', 201, '{}', '', $2
        from generate_series(1, $1)
        """,
        count,
        sample.clock.now() - age,
    )


def purged_metric() -> float:
    return REGISTRY.get_sample_value("muster_purged_total", {"service": "sample", "table": "idempotency"}) or 0


async def test_a_reply_is_kept_for_a_week_and_the_key_may_be_used_again_after_it(sample: Sample) -> None:
    start = sample.clock.now()
    sample.clock.move(start)
    first = await sample.client.post(NOTES, json={"text": "a"}, headers=key("k-1"))
    async with purging(sample):
        sample.clock.move(start + WEEK - timedelta(hours=2))
        await sample.client.post(NOTES, json={"text": "b"}, headers=key("k-2"))
        again = await sample.client.post(NOTES, json={"text": "a"}, headers=key("k-1"))
        assert again.content == first.content
        sample.clock.move(start + WEEK + timedelta(hours=1))

        async def one_left() -> bool:
            return await sample.count("idempotency") == 1

        await eventually(one_left)
    later = await sample.client.post(NOTES, json={"text": "another"}, headers=key("k-1"))
    assert later.status_code == 201
    assert "idempotency-replayed" not in later.headers


async def test_a_long_backlog_is_deleted_in_batches_and_what_is_younger_stays(sample: Sample) -> None:
    await keep_replies(sample, 2 * BATCH_ROWS + 10, WEEK)
    await keep_replies(sample, 7, WEEK - timedelta(minutes=5))
    before = purged_metric()
    batches: list[int] = []
    retention = idempotency.retention(7)
    async with sample.app.state.runtime.database.pool.acquire() as worker:
        while not batches or batches[-1]:
            batches.append(await retention.purge(worker, sample.clock.now() - WEEK, BATCH_ROWS))
    assert batches == [BATCH_ROWS, BATCH_ROWS, 10, 0]
    await keep_replies(sample, 2 * BATCH_ROWS + 10, WEEK)
    async with purging(sample):

        async def seven_left() -> bool:
            return await sample.count("idempotency") == 7

        await eventually(seven_left)
        await eventually(lambda: purged_metric() - before == 2 * BATCH_ROWS + 10)
        overdue = {"service": "sample", "table": "idempotency"}
        await eventually(lambda: REGISTRY.get_sample_value("muster_purge_overdue_seconds", overdue) == 0)


async def test_after_the_clock_was_set_back_nothing_is_deleted_early(sample: Sample) -> None:
    start = sample.clock.now()
    sample.clock.move(start + 2 * WEEK)
    for expired, younger in ((1, 0), (2, 3)):
        await keep_replies(sample, expired, WEEK)
        await keep_replies(sample, younger, WEEK - timedelta(hours=1))
        async with purging(sample):

            async def only_the_younger_are_left(younger: int = younger) -> bool:
                return await sample.count("idempotency") == younger

            await eventually(only_the_younger_are_left)
        sample.clock.move(start)


async def test_the_oldest_rows_are_deleted_first(sample: Sample) -> None:
    for weeks in (2, 3, 1):
        await keep_replies(sample, 1, weeks * WEEK)
    retention, kept = idempotency.retention(7), []
    async with sample.app.state.runtime.database.pool.acquire() as worker:
        while oldest := await retention.oldest(worker):
            kept.append((sample.clock.now() - oldest) // WEEK)
            assert await retention.purge(worker, sample.clock.now() - WEEK, 1) == 1
    assert kept == [3, 2, 1]


async def test_a_row_of_the_year_9999_stops_no_purge(sample: Sample) -> None:
    start = sample.clock.now()
    sample.clock.move(start)
    await keep_replies(sample, 1, WEEK)
    await sample.admin.execute("update idempotency set recorded_at = '9999-12-31T23:59:59Z'")
    async with purging(sample):
        for rounds in range(2):
            await keep_replies(sample, 1, 2 * WEEK)
            sample.clock.move(start + rounds * WEEK)

            async def one_left() -> bool:
                return await sample.count("idempotency") == 1

            await eventually(one_left)


async def test_a_purge_that_the_database_interrupts_continues(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling_retention, "_RETRY_SECONDS", 0.0)
    await keep_replies(sample, 1, WEEK)
    kept, interruptions = idempotency.retention(7), [ConnectionResetError("lost")]

    async def oldest(connection: Connection) -> datetime | None:
        if interruptions:
            raise interruptions.pop()
        return await kept.oldest(connection)

    async def all_gone() -> bool:
        return await sample.count("idempotency") == 0

    async with purging(sample, replace(kept, oldest=oldest)):
        await eventually(all_gone)


async def test_what_cannot_be_deleted_now_waits_for_the_next_round(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A purge may skip locked rows."""
    monkeypatch.setattr(scheduling_retention, "PAUSE_SECONDS", 0.0)
    start = sample.clock.now()
    sample.clock.move(start)
    await keep_replies(sample, 1, WEEK)
    purges = 0

    async def purge(connection: Connection, before: datetime, limit: int) -> int:
        nonlocal purges
        purges += 1
        return 0

    async with purging(sample, replace(idempotency.retention(7), purge=purge)):
        await eventually(lambda: purges)
        for _ in range(20):
            await sample.count("idempotency")
        assert purges == 1
        sample.clock.move(start + ROUND)
        await eventually(lambda: purges == 2)


async def test_rows_that_expire_soon_after_a_round_wait_for_the_next_one(sample: Sample) -> None:
    """Otherwise, a busy table would be queried for every row that expires."""
    start = sample.clock.now()
    sample.clock.move(start)
    kept, looks = idempotency.retention(7), 0

    async def oldest(connection: Connection) -> datetime | None:
        nonlocal looks
        found = await kept.oldest(connection)
        looks += 1
        return found

    await keep_replies(sample, 1, WEEK - timedelta(minutes=5))
    async with purging(sample, replace(kept, oldest=oldest)):
        await eventually(lambda: looks == 1)
        sample.clock.move(start + ROUND - timedelta(seconds=1))
        for _ in range(20):
            assert await sample.count("idempotency") == 1
        assert looks == 1
        sample.clock.move(start + ROUND)
        await eventually(lambda: looks > 1)


async def test_neither_waits_for_the_other(sample: Sample) -> None:
    """A purge continues while NASA's lock is held, and so does a command of NASA while a purge is uncommitted."""
    await keep_replies(sample, 3, 2 * WEEK)
    database = sample.app.state.runtime.database
    async with database.write("NASA", context=Context("operator", "cor_1")), purging(sample):

        async def all_gone() -> bool:
            return await sample.count("idempotency") == 0

        await eventually(all_gone)
    await keep_replies(sample, 3, 2 * WEEK)
    async with database.pool.acquire() as worker, worker.transaction():
        assert await idempotency.retention(7).purge(worker, sample.clock.now() - WEEK, BATCH_ROWS) == 3
        async with asyncio.timeout(5):
            reply = await sample.client.post(NOTES, json={"text": "a"}, headers=key("k-1"))
        assert reply.status_code == 201


async def test_a_purge_that_finds_nothing_writes_nothing(sample: Sample) -> None:
    """Otherwise a sandbox in which nothing has happened yet could not start at an instant in the past."""
    runtime = sample.app.state.runtime
    looks = 0

    async def oldest(connection: Connection) -> datetime | None:
        nonlocal looks
        found = await kept.oldest(connection)
        looks += 1  # only now: the purger reads the clock afterward
        return found

    kept = idempotency.retention(7)
    purger = Purger(runtime.database, Wakeup(sample.clock), sample.clock, [replace(kept, oldest=oldest)], "sample")
    duty = asyncio.create_task(purger.run())
    await eventually(lambda: looks)
    sample.clock.move(sample.clock.now() + 3 * WEEK)
    await eventually(lambda: looks > 1)
    duty.cancel()
    with suppress(asyncio.CancelledError):
        await duty
    assert await sample.count("agency_instant") == 0

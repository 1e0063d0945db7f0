"""Stored replies are deleted when they expire: in batches, whatever locks are held, without delaying a command."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta

from prometheus_client import REGISTRY

from muster_runtime.context import Context
from muster_runtime.database.transactions import Connection
from muster_runtime.database.wakeup import Wakeup
from muster_runtime.http import idempotency
from muster_runtime.scheduling.retention import BATCH_ROWS, Purger
from tests.integration.runtime.http.conftest import Sample
from tests.integration.runtime.http.test_commands import NOTES, key
from tests.support.eventually import eventually

WEEK = timedelta(days=7)


@asynccontextmanager
async def purging(sample: Sample) -> AsyncIterator[None]:
    """The purging duty, as a process runs it."""
    runtime = sample.app.state.runtime
    wakeup = Wakeup(sample.clock)
    sample.clock.on_move(wakeup.wake)
    retentions = [idempotency.retention(runtime.settings.idempotency_retention_days)]
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

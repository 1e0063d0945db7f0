"""Counted use is dropped when it has expired by the server's own clock: no service can have it dropped earlier."""

from datetime import date, timedelta
from typing import NamedTuple

import asyncpg

from muster_entitlements.repository.usage import keep_partitions
from tests.integration.entitlements.conftest import Entitlements

DAY = timedelta(days=1)


class Kept(NamedTuple):
    """How a table's partitions are named, a day that is still kept, and one that has expired."""

    form: str
    last: date
    over: date


def kept(today: date) -> dict[str, Kept]:
    """For 45 days, two days, and 25 months: a partition is dropped once its last row is that old."""
    months = today.year * 12 + today.month - 1
    last, over = (date((months - ago) // 12, (months - ago) % 12 + 1, 1) for ago in (25, 27))
    return {
        "usage_seen": Kept("%Y%m%d", today - 46 * DAY, today - 47 * DAY),
        "usage_reply": Kept("%Y%m%d", today - 3 * DAY, today - 4 * DAY),
        "usage_sum": Kept("%Y%m01", last, over),
    }


async def test_the_worker_role_has_counted_use_dropped_only_when_it_is_over(front: Entitlements) -> None:
    admin = front.service.admin
    today: date = await admin.fetchval("select (now() at time zone 'UTC')::date")
    tables = kept(today)
    old = today - 800 * DAY
    worker = await asyncpg.connect(front.service.access.worker_dsn, server_settings={"search_path": "entitlements"})

    async def keep(day: date) -> set[str]:
        await keep_partitions(worker, day)
        rows = await admin.fetch("select relname from pg_class where relispartition and relkind = 'r'")
        return {row["relname"] for row in rows}

    async def sums() -> int:
        counted: int = await admin.fetchval("select count(*) from usage_sum")
        return counted

    def partitions(day: date) -> set[str]:
        return {f"{table}_{day:{each.form}}" for table, each in tables.items()}

    try:
        await keep(today)
        assert partitions(old) | partitions(today) <= await keep(old)
        for day in (old, today):
            await admin.execute("insert into usage_sum values ('NASA', 'f', '', $1::date, $1::date, 1)", day)
        assert partitions(today) <= await keep(date(2999, 1, 1))
        assert await sums() == 1
        assert not partitions(old) & await keep(today)

        # As long as the docs say, and no longer.
        for day in sorted({day for each in tables.values() for day in (each.last, each.over)}):
            await keep(day)
        there = await keep(today)
        assert {f"{table}_{each.last:{each.form}}" for table, each in tables.items()} <= there
        assert not {f"{table}_{each.over:{each.form}}" for table, each in tables.items()} & there
    finally:
        await worker.close()

"""Counted use is dropped when it is over, by the server's own clock: no service can have it dropped before."""

from datetime import date, timedelta

import asyncpg

from tests.integration.entitlements.conftest import Entitlements

TABLES = {"usage_seen": "%Y%m%d", "usage_sum": "%Y%m01"}


async def test_the_worker_role_has_counted_use_dropped_only_when_it_is_over(front: Entitlements) -> None:
    admin = front.service.admin
    today: date = await admin.fetchval("select (now() at time zone 'UTC')::date")
    old = today - timedelta(days=800)
    worker = await asyncpg.connect(front.service.access.worker_dsn, server_settings={"search_path": "entitlements"})

    async def keep(day: date) -> set[str]:
        for table in TABLES:
            await worker.execute("select keep_usage_partitions($1, $2)", table, day)
        rows = await admin.fetch("select relname from pg_class where relispartition and relkind = 'r'")
        return {row["relname"] for row in rows}

    async def sums() -> int:
        counted: int = await admin.fetchval("select count(*) from usage_sum")
        return counted

    def partitions(day: date) -> set[str]:
        return {f"{table}_{day:{form}}" for table, form in TABLES.items()}

    try:
        await keep(today)
        assert partitions(old) | partitions(today) <= await keep(old)
        for day in (old, today):
            await admin.execute("insert into usage_sum values ('NASA', 'f', '', $1::date, $1::date, 1)", day)
        assert partitions(today) <= await keep(date(2999, 1, 1))
        assert await sums() == 1
        assert not partitions(old) & await keep(today)
    finally:
        await worker.close()

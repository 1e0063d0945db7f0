"""Which deadlines the scheduler finds due, and that a backlog of one agency does not slow it down."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, cast

import pytest

from muster_runtime.database.transactions import Connection
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline
from tests.integration.runtime.core.test_scheduler import START, set_deadlines
from tests.support.explaining import Explaining
from tests.support.services import RunningService

BACKLOG = 2_000
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def worker(idle_probe: RunningService) -> AsyncIterator[Connection]:
    async with idle_probe.runtime.database.connection() as connection:
        yield connection


def count_rows_read(plan: str) -> float:
    """The most rows that a step of an analyzed plan has read, those that it skipped among them."""
    found = [float(rows) * int(loops) for rows, loops in re.findall(r"actual \S+ rows=([\d.]+) loops=(\d+)", plan)]
    skipped = [int(rows) for rows in re.findall(r"Rows Removed by Filter: (\d+)", plan)]
    return max([*found, *skipped])


async def test_a_backlog_is_not_read_whole(idle_probe: RunningService, worker: Connection) -> None:
    await idle_probe.admin.execute(
        """
        insert into deadline (kind, agency_id, subject, due_at)
        select 'revoke', 'DOE', 'seat_' || n, $1::timestamptz - n * interval '1 second'
        from generate_series(1, $2::integer) as n
        union all values ('revoke', 'EPA', 'seat_1', $1), ('revoke', 'NASA', 'seat_1', $1 + interval '1 day')
        """,
        START,
        BACKLOG,
    )
    await idle_probe.admin.execute("analyze deadline")
    agencies = await deadlines.due_agencies(worker, START, late_before=START, without=[])
    assert list(agencies.items()) == [("EPA", START), ("DOE", START - timedelta(seconds=BACKLOG))]
    explaining = Explaining(worker, "(analyze, costs off)")
    connection = cast("Connection", explaining)
    await deadlines.due_agencies(connection, START, late_before=START, without=[])
    assert count_rows_read(explaining.plan) <= len(("DOE", "EPA", "NASA")), explaining.plan
    for agency_id in ("DOE", "EPA", "NASA"):
        await deadlines.due_first(connection, agency_id, START)
        assert count_rows_read(explaining.plan) <= 1, explaining.plan


async def test_a_kind_that_waits_hides_no_later_deadline_of_its_agency(
    idle_probe: RunningService, worker: Connection
) -> None:
    idle_probe.clock.move(START)
    await set_deadlines(
        idle_probe,
        Deadline("waits", "DOE", "1", START - 2 * MINUTE),
        Deadline("revoke", "DOE", "2", START - MINUTE),
        Deadline("waits", "EPA", "3", START - MINUTE),
        Deadline("waits", "NASA", "4", START - MINUTE),
        Deadline("revoke", "NSF", "5", START + MINUTE),
    )
    await idle_probe.admin.execute("update deadline set parked_at = due_at, reason = 'r' where agency_id = 'NSF'")

    async def due(**options: Any) -> dict[str, Any]:
        return await deadlines.due_agencies(worker, START, **{"late_before": START, "without": [], **options})

    assert await due() == {"DOE": START - 2 * MINUTE, "EPA": START - MINUTE, "NASA": START - MINUTE}
    assert await due(kinds=["waits"], of_kinds=["NASA"]) == {"DOE": START - MINUTE, "NASA": START - MINUTE}
    assert await due(without=["DOE", "EPA"]) == {"NASA": START - MINUTE}
    assert await deadlines.due_agencies(worker, START - 3 * MINUTE, late_before=START, without=[]) == {}
    (first,) = await deadlines.due_first(worker, "DOE", START, without_kinds=["waits"])
    assert first.subject == "2"
    assert await deadlines.due_first(worker, "NSF", START + MINUTE) == []

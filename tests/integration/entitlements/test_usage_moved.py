"""Counted use moves to a new partition: whoever reads meanwhile finds it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from muster_entitlements.queries.checks import find_question
from muster_entitlements.repository import uses_above
from muster_entitlements.repository.usage import keep_partitions
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_catalog import FRONTIER
from tests.integration.entitlements.test_quotas_below_use import begin, notes, of_agency, planned
from tests.support.eventually import eventually

NOTES_OF_ADA = {"subject": "person.ada@nasa.gov", "feature": "notes"}


async def waiting(front: Entitlements) -> int:
    """How many sessions wait for a table."""
    found: int = await front.service.admin.fetchval(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'relation'"
    )
    return found


async def explained(front: Entitlements) -> tuple[int, int]:
    found = (await front.get("checks/explanation", **NOTES_OF_ADA)).json()
    return found["answer"]["used"], found["quota"]["used"]


async def checked(front: Entitlements) -> int:
    used: int = (await front.get("checks", **NOTES_OF_ADA)).json()["used"]
    return used


def after_the_move(front: Entitlements, read: Callable[..., Awaitable[Any]], moves: list[asyncio.Task[None]]) -> Any:
    """`read`, once the use has moved, or its move waits for the reader."""

    async def keep() -> None:
        async with front.service.runtime.database.connection() as worker:
            await keep_partitions(worker, START.date())

    async def read_then(*arguments: Any) -> Any:
        move = asyncio.create_task(keep())
        moves.append(move)

        async def has_moved_or_waits() -> bool:
            return move.done() or await waiting(front) > 0

        await eventually(has_moved_or_waits)
        return await read(*arguments)

    return read_then


async def moved(front: Entitlements, moves: list[asyncio.Task[None]]) -> None:
    """Wait for the move, and check that there was one."""
    await asyncio.gather(*moves)
    where = await front.service.admin.fetch("select distinct tableoid::regclass::text as name from usage_sum")
    assert [row["name"] for row in where] == [f"usage_sum_{START:%Y%m01}"]


async def test_an_explanation_finds_use_that_moves_after_its_start(
    front: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(front)
    moves: list[asyncio.Task[None]] = []
    with monkeypatch.context() as patch:
        moving_first = after_the_move(front, find_question, moves)
        patch.setattr("muster_entitlements.queries.explanations.find_question", moving_first)
        assert await explained(front) == (18, 18)
    await moved(front, moves)
    assert await explained(front) == (18, 18)


async def test_a_plan_finds_use_that_moves_after_its_start(
    front: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(front)
    moves: list[asyncio.Task[None]] = []
    monkeypatch.setattr(uses_above, "find_above", after_the_move(front, uses_above.find_above, moves))
    low = [FRONTIER, notes(limit=10), of_agency(limit=20)]
    assert await planned(front, *low) == {"notes": (["NASA"], 2, 18)}
    await moved(front, moves)


async def test_who_waits_for_the_move_finds_the_use(front: Entitlements) -> None:
    await begin(front)

    async def both_wait() -> bool:
        return await waiting(front) == 2

    async with front.service.runtime.database.connection() as worker, worker.transaction():
        await keep_partitions(worker, START.date())
        explaining, checking = asyncio.create_task(explained(front)), asyncio.create_task(checked(front))
        await eventually(both_wait)
    assert (await explaining, await checking) == ((18, 18), 18)

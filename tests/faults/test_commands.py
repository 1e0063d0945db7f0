"""Commands and instants: carried out once, however often they are asked for and whatever the clock does."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.faults.field import Field
from tests.faults.findings import Findings
from tests.support.eventually import eventually

pytestmark = pytest.mark.drill

DAY = timedelta(days=1)


async def test_21_when_the_clock_jumps_a_day_either_way_an_expiry_happens_once(
    field: Field, findings: Findings
) -> None:
    first, second = await field.serve("scheduler"), field.start("scheduler")
    await field.ready(second)
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    await field.move_clock(noon, first, second)
    for hours in (1, 2, 30):
        body = {"subject": f"window-{hours}", "due_at": (noon + timedelta(hours=hours)).isoformat()}
        reply = await field.client.post("/v1/agencies/NASA/expiries", json=body)
        assert reply.status_code == 201, reply.text
    findings.fault_is_over()
    latest = noon
    for now, expired in (
        (noon + DAY, 2),  # forward over two of them
        (noon, 2),  # back before both, which no process follows: time never goes back
        (noon + timedelta(hours=1), 2),  # to the very instant of the first
        (noon + DAY, 2),
        (noon + 2 * DAY, 3),
        (noon - DAY, 3),
        (noon + 2 * DAY, 3),
    ):
        latest = max(latest, now)
        await field.move_clock(now, first, second, until=latest)
        await eventually(lambda: field.has_expired(expired))  # noqa: B023 - awaited within the turn
    findings.recovered("seven jumps, three expiries, two schedulers")
    rows = await field.admin.fetch("select subject, due_at from expiry order by due_at")
    assert [(row["subject"], row["due_at"] - noon) for row in rows] == [
        (f"window-{hours}", timedelta(hours=hours)) for hours in (1, 2, 30)
    ]
    assert await field.admin.fetchval("select count(*) from deadline") == 0


async def test_22_fifty_requests_under_one_key_and_a_kill_before_the_answer_make_one_effect(
    field: Field, findings: Findings
) -> None:
    dying = await field.serve("relay", "consumer", breaking=["--die-after", "reply"])
    answers = await asyncio.gather(*(_ask(field.client) for _ in range(50)))
    await field.until_dead(dying)
    assert answers == [None] * 50
    assert await field.admin.fetchval("select count(*) from seat") == 3

    findings.fault_is_over()
    await field.serve("relay", "consumer")
    again = await asyncio.gather(*(_ask(field.client) for _ in range(50)))
    findings.recovered("no request had an answer; repeated, all fifty had the same one")
    assert set(again) == {'{"first":1,"last":3}'}
    await field.assign_seats("NASA", "a", "b", "c", key="one key")
    await field.at_rest()
    assert await field.differences() == []


async def _ask(client: httpx.AsyncClient) -> str | None:
    try:
        reply = await client.post(
            "/v1/agencies/NASA/seats",
            json={"seat_ids": ["a", "b", "c"]},
            headers={"Idempotency-Key": "one key"},
        )
    except httpx.TransportError:
        return None
    assert reply.status_code == 201, reply.text
    return reply.text

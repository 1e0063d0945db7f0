"""Idle seats of a large agency: warned about and revoked step by step."""

from datetime import datetime, timedelta

import pytest

from muster_entitlements.bootstrap import build
from muster_entitlements.handlers import idle
from muster_entitlements.settings import EntitlementsSettings
from muster_runtime.process.roles import Role
from tests.integration.entitlements.conftest import START, Entitlements
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner

SEATS, STEP = 1_100, 100


async def test_idle_seats_are_warned_of_and_taken_back_in_bounded_transactions(
    front: Entitlements, run_service: ServiceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle, "STEP_SEATS", STEP)
    admin = front.service.admin

    async def largest_transaction(condition: str) -> int:
        rows = await admin.fetch(f"select count(*) from seat where {condition} group by xmin::text")
        assert sum(row[0] for row in rows) == SEATS
        events = await admin.fetch("select sum(events) from outbox group by xmin::text")
        assert max(row[0] for row in events) <= 3 * STEP
        largest: int = max(row[0] for row in rows)
        return largest

    async def next_look(expected: datetime | None) -> None:
        async def scheduled() -> bool:
            due = await admin.fetchval("select min(due_at) from deadline where kind = 'idle-seats'")
            return bool(due == expected)

        await eventually(scheduled, timeout=60)

    async def set_policy(idle_days: int | None) -> None:
        body = {"idle_days": idle_days, "warning_days": 1}
        assert (await front.service.client.put("/v1/agencies/NASA/seat-policy", json=body)).status_code == 200

    await front.enroll(cap=SEATS)
    await front.assign_seats(SEATS)
    await set_policy(10)
    await admin.execute("delete from outbox")
    worker = await run_service(build, EntitlementsSettings, roles=frozenset({Role.SCHEDULER}), beside=front.service)

    def move(days: int) -> None:
        for service in (front.service, worker):
            service.clock.move(START + timedelta(days=days))

    move(10)
    await next_look(START + timedelta(days=11))
    assert await largest_transaction("idle_reclaim_at is not null") <= STEP

    # Warnings are forgotten step by step too, even if the next policy comes before that is done.
    await set_policy(None)
    await set_policy(5)
    await next_look(START + timedelta(days=11))
    assert await largest_transaction("idle_reclaim_at is null") <= STEP

    move(12)
    await next_look(START + timedelta(days=13))
    assert await admin.fetchval("select count(*) from seat where idle_reclaim_at is not null") == SEATS
    move(13)
    await next_look(START + timedelta(days=14))
    assert await largest_transaction("state = 'revoked'") <= STEP
    assert (await front.pool())["in_use"] == 0
    await set_policy(None)
    await next_look(None)

"""A raised epoch holds every deadline until an operator releases them."""

from datetime import timedelta

import asyncpg
import pytest
from prometheus_client import REGISTRY

from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline
from muster_runtime.settings import Settings
from tests.integration.runtime.core.probe.service import build
from tests.integration.runtime.core.test_scheduler import START, note_looks, revoked, set_deadlines
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.failover import fail_over, finish_comparison
from tests.support.services import RunningService, ServiceRunner

WHY = {"reason": "restored from the backup of Monday"}
RELEASE = "/v1/deadlines/release"
RETRY = "/v1/parked-deadlines/retry"


@pytest.fixture
async def held(idle_probe: RunningService) -> RunningService:
    """A probe without a scheduler, whose epoch was raised at START."""
    idle_probe.clock.move(START)
    (await idle_probe.client.post("/v1/epoch", json=WHY)).raise_for_status()
    return idle_probe


async def test_no_deadline_is_handled_until_they_are_released_and_then_each_once_in_order(
    held: RunningService, run_service: ServiceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = note_looks(monkeypatch)
    days = (3, 1, 2)
    await set_deadlines(held, *(Deadline("revoke", "NASA", f"day {day}", START + timedelta(days=day)) for day in days))
    service = await run_service(build, Settings, beside=held)  # a restart does not end the hold
    service.clock.move(START + timedelta(days=2))

    async def has_looked(count: int) -> bool:
        async with held.runtime.database.write("DOE", context=CONTEXT) as uow:
            uow.wake()
        return len(looks) >= count

    await eventually(lambda: has_looked(2), timeout=20)
    service.clock.move(START + timedelta(days=30))  # another one is due
    await eventually(lambda: has_looked(len(looks) + 1), timeout=20)
    assert all(looks)
    assert await service.admin.fetchval("select count(*) from deadline") == len(days)

    released = await service.client.post(RELEASE, json=WHY)
    assert released.json() == {"held_since": "2025-08-06T00:00:00Z"}
    expected = [("NASA", f"day {day}", START + timedelta(days=day)) for day in sorted(days)]

    async def handled() -> bool:
        return await revoked(service) == expected

    await eventually(handled)
    assert await service.admin.fetchval("select count(*) from deadline") == 0


async def test_a_transaction_that_began_before_the_hold_takes_no_deadline(idle_probe: RunningService) -> None:
    due = Deadline("revoke", "NASA", "seat_1", START)
    await set_deadlines(idle_probe, due)
    database = idle_probe.runtime.database
    async with database.write("NASA", context=CONTEXT) as uow:
        assert await idle_probe.admin.fetchval("select deadlines_held_since from epoch") is None
        (await idle_probe.client.post("/v1/epoch", json=WHY)).raise_for_status()
        assert await deadlines.take(uow, [due]) == []
    (await idle_probe.client.post(RELEASE, json=WHY)).raise_for_status()
    async with database.write("NASA", context=CONTEXT) as uow:
        assert await deadlines.take(uow, [due]) == [due]


async def test_a_parked_deadline_is_retried_only_after_the_release(held: RunningService) -> None:
    """Its handler would act on the same facts as the others' handlers, and use it up."""
    await set_deadlines(held, *(Deadline("revoke", "NASA", subject, START) for subject in ("seat_1", "seat_2")))
    await held.admin.execute("update deadline set parked_at = due_at, reason = 'broken'")
    named = {"kind": "revoke", "agency_id": "NASA", "subject": "seat_1", "due_at": START.isoformat()}
    refused = await held.client.post(RETRY, json=named)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:muster:problem:deadlines-held"), refused.text
    assert refused.json()["detail"] == (
        "deadlines are held since 2025-08-06T00:00:00Z (muster deadlines release probe; if the relay says that it was "
        "restored, raise its epoch first): retry this one afterward"
    )
    assert await held.admin.fetchval("select count(*) from deadline") == 2

    discarded = await held.client.post("/v1/parked-deadlines/discard", json=named | {"subject": "seat_2"} | WHY)
    assert discarded.status_code == 204, discarded.text
    (await held.client.post(RELEASE, json=WHY)).raise_for_status()
    await fail_over(held.admin)
    assert (await held.client.post(RETRY, json=named)).status_code == 409
    await finish_comparison(held.admin)
    assert (await held.client.post(RETRY, json=named)).json() == {"parked": False, "reason": None}
    assert await held.admin.fetchval("select count(*) from deadline") == 0


async def test_a_release_is_audited_and_safe_to_repeat(held: RunningService) -> None:
    held.clock.move(START + timedelta(hours=2))
    (await held.client.post("/v1/epoch", json=WHY)).raise_for_status()  # a second restore
    assert (await held.client.get("/v1/deadlines/hold")).json() == {"held_since": "2025-08-06T00:00:00Z"}
    assert (await held.client.post(RELEASE, json={})).status_code == 422
    one_agencys = {"Authorization": f"Bearer {held.token('probe:operate', agency='NASA')}"}
    for reply in (
        await held.client.post(RELEASE, json=WHY, headers=one_agencys),
        await held.client.get("/v1/deadlines/hold", headers=one_agencys),
    ):
        assert reply.status_code == 403
    replies = [await held.client.post(RELEASE, json=WHY) for _ in range(2)]
    assert [reply.json()["held_since"] for reply in replies] == ["2025-08-06T00:00:00Z", None]
    assert (await held.client.get("/v1/deadlines/hold")).json() == {"held_since": None}
    audited = await held.admin.fetch(
        "select agency_id, actor, reason, before from audit where command = 'ReleaseDeadlines'"
    )
    before = '{"held_since": "2025-08-06 00:00:00+00:00"}'
    assert [tuple(row) for row in audited] == [("*", "operator", WHY["reason"], before)]


async def test_a_service_whose_deadlines_are_held_is_ready_and_says_so(held: RunningService) -> None:
    held.clock.move(START + timedelta(hours=2))
    await set_deadlines(held, Deadline("revoke", "NASA", "seat_1", START))
    warning = (
        "deadlines are held since 2025-08-06T00:00:00Z "
        "(muster deadlines release probe; if the relay says that it was restored, raise its epoch first)"
    )
    state = (await held.client.get("/sandbox/state")).json()
    assert (state["deadlines_held_since"], state["next_due"]) == ("2025-08-06T00:00:00Z", "2025-08-06T00:00:00Z")
    for seconds, warned in ((7200, True), (0, False)):
        ready = await held.client.get("/health/ready")
        assert (ready.status_code, warning in ready.json()["warnings"]) == (200, warned)
        assert REGISTRY.get_sample_value("muster_deadlines_held_seconds", {"service": "probe"}) == seconds
        assert (
            REGISTRY.get_sample_value("muster_warnings", {"service": "probe", "about": "service"}) == 0
        )  # it has an alert of its own
        (await held.client.post(RELEASE, json=WHY)).raise_for_status()


async def test_only_the_worker_role_may_change_the_hold_and_to_a_readable_instant(held: RunningService) -> None:
    rights = await held.admin.fetch(
        """
        select role, right_name
        from unnest(array['api', 'worker']) as role
        cross join unnest(array['select', 'update']) as right_name
        where has_column_privilege('probe_' || role, 'epoch', 'deadlines_held_since', right_name)
        order by role, right_name
        """
    )
    assert [tuple(row) for row in rights] == [("api", "select"), ("worker", "select"), ("worker", "update")]
    async with held.runtime.database.connection() as connection:
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute("update epoch set deadlines_held_since = '4714-11-24 00:00:00+00 BC'")

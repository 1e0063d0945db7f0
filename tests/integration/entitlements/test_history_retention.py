"""Past states of pools, windows, and seats are deleted in time, and no longer answered; nothing else changes."""

from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

from muster_entitlements.bootstrap import build
from muster_entitlements.domain.as_of import AsOf
from muster_entitlements.repository import history
from muster_entitlements.repository.purge import HISTORIES
from muster_entitlements.settings import EntitlementsSettings
from tests.integration.entitlements.conftest import NEXT_END, START, Entitlements
from tests.integration.entitlements.lives import DAY
from tests.integration.entitlements.random_life import address, get, text
from tests.integration.entitlements.test_as_of import Recorded, purge, recorded, settled
from tests.integration.entitlements.test_corrections import PATHS
from tests.integration.entitlements.test_usage import LATER, report, used
from tests.integration.entitlements.test_windows import decision, send, windows
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner


async def test_ended_versions_are_deleted_in_time_and_what_they_said_is_refused(run_service: ServiceRunner) -> None:
    service = await run_service(build, EntitlementsSettings, history_retention_days=30)
    service.clock.move(START)
    own = Entitlements(service)
    await own.enroll(cap=5)
    ada = (await own.assign(1)).json()
    await own.assign(2)
    answers: list[Recorded] = [await recorded(own)]
    assert await purge(own, START + DAY / 2) == 0
    assert await service.admin.fetchval("select before from history_purge") is None  # all of it can be answered

    async def do(day: int, action: str) -> None:
        service.clock.move(START + day * DAY)
        assert (await own.post(f"seats/{ada['seat_id']}/{action}")).status_code == 200

    await do(1, "activation")
    ended = await send(own, decision(own, "end", "deep-research", await windows(own)), "ann", reason="misuse")
    assert ended.status_code == 200, ended.text
    answers.append(await recorded(own))
    await do(2, "suspension")
    assert (await own.post("pool/resize", {"cap": 7})).status_code == 200
    answers.append(await recorded(own))
    await do(3, "reinstatement")
    answers.append(await recorded(own))

    async def versions() -> list[tuple[str, str]]:
        found = (await get(own, f"seats/{ada['seat_id']}/history"))["items"]
        return [(each["state"], each["recorded_from"]) for each in found]

    lived = ("assigned", "active", "suspended", "active")
    instants = [text(START + day * DAY) for day in range(41)]
    assert await versions() == list(zip(lived, instants, strict=False))

    # What was being read while it was deleted is still answered.
    first = AsOf.of(START, START, service.clock.now())
    assert first is not None
    async with service.runtime.database.read("NASA", of_one_state=True) as reading:
        pool = await history.find_pool(reading, "NASA", first)
        assert pool is not None
        assert await purge(own, START + 2 * DAY) == 2 + 1 + 2  # of the pool, the window, and the seat
        found = await history.list_windows(reading, "NASA", pool.enrollment_id, first)
        assert [text(window.ends_at) for window in found] == [each["ends_at"] for each in answers[0]["windows"]]
        assert await history.count_seats(reading, pool, first) == {"assigned": 2}
    assert await purge(own, START + 2 * DAY) == 0

    early, kept, late = text(START + 2 * DAY - timedelta(microseconds=1)), instants[2], instants[3]
    for path in PATHS:
        reply = await service.client.get(f"/v1/agencies/NASA/{path}&at={early}")
        [error] = reply.json()["errors"]
        assert (reply.status_code, error["field"], kept[:10] in error["rule"]) == (422, "at", True), reply.text
    body: Any = {"pairs": [{"subject": address(1), "feature": "deep-research"}]}
    reply = await service.client.post("/v1/agencies/NASA/checks", params={"at": early}, json=body)
    assert (reply.status_code, reply.json()["errors"][0]["field"]) == (422, "at")
    for at, recorded_at, field in ((None, early, "recorded_at"), (early, late, "at"), (late, early, "recorded_at")):
        asked = {"recorded_at": recorded_at} | ({"at": at} if at else {})
        reply = await own.get("windows", **asked)
        assert (reply.status_code, reply.json()["errors"][0]["field"]) == (422, field), reply.text
    for day in (2, 3):
        assert await recorded(own, at=instants[day], recorded_at=instants[day]) == answers[day]
    assert (await get(own, "grants", recorded_at=early))["items"] == []  # grants are kept
    other = Entitlements(service, "NSF")
    assert [(await other.get("pool", at=at)).status_code for at in (early, kept)] == [422, 404]
    refused = {"0001-01-01T00:00:00Z": "program", "9999-12-31T23:59:59Z": "future", "9999-12-31T23:59:59-14:00": "9999"}
    for far, rule in refused.items():
        reply = await own.get("pool", at=far)
        assert (reply.status_code, rule in reply.json()["errors"][0]["rule"]) == (422, True), reply.text
    assert await versions() == list(zip(lived[2:], instants[2:], strict=False))

    # A change that no answer shows makes no version.
    await service.admin.execute("update agency_instant set latest = latest + interval '1 hour'")
    before = [await service.admin.fetchval(f"select count(*) from {name}") for name in HISTORIES]
    await service.admin.execute("update pool set limit_met = not limit_met")
    await service.admin.execute("update feature_window set seats_through = 'seat_1', seats_begun_at = now()")
    assert before == [await service.admin.fetchval(f"select count(*) from {name}") for name in HISTORIES]
    await service.admin.execute("update pool set revision = revision + 1")
    assert await service.admin.fetchval("select count(*) from pool_history") == before[0] + 1

    service.clock.move(START + 40 * DAY)

    async def all_deleted() -> bool:
        left = [await service.admin.fetchval(f"select count(*) from {name}") for name in HISTORIES]
        return left == [0] * len(HISTORIES)

    await eventually(all_deleted)
    assert await versions() == [("active", instants[3])]
    assert (await own.get("pool", at=instants[9])).status_code == 422
    assert await get(own, "pool", at=instants[10]) == await own.pool()
    assert (await get(own, f"seats/{ada['seat_id']}", at=instants[10]))["state"] == "active"
    explained = await get(own, "checks/explanation", subject=address(1), feature="frontier-models")
    assert explained["seat"]["recorded_from"] == instants[3]
    await do(40, "suspension")
    assert await versions() == [("active", instants[3]), ("suspended", instants[40])]


async def test_what_no_answer_shows_any_longer_is_deleted_in_time(run_service: ServiceRunner) -> None:
    service = await run_service(build, EntitlementsSettings, history_retention_days=30)
    service.clock.move(START)
    own = Entitlements(service)
    await own.enroll(cap=5)
    service.clock.move(LATER)
    await eventually(lambda: settled(own))  # the events of ended trials are there, and are not stored after a purge
    ada = (await own.assign(1)).json()["subject_ref"]
    grant = {"feature": "frontier-models", "reason": "pilot"}
    assert (await own.post("grants", grant | {"ends_at": text(LATER + DAY)})).status_code == 201
    lasting = (await own.post("grants", grant | {"subject": address(1)})).json()["grant_id"]
    uses = {"feature": "deep-research", "amount": 5, "reason": "pilot"}
    assert (await own.post("quota-grants", uses | {"ends_at": text(LATER + DAY)})).status_code == 201
    further, ending = [
        (await own.post("quota-grants", uses | until)).json()["grant_id"]
        for until in ({}, {"ends_at": text(LATER + 60 * DAY)})
    ]
    assert (await report(own, used(1, ada, amount=25))).json()["counted"] == 1
    again = LATER + 2 * DAY
    service.clock.move(again)
    enrolled = own.enrolled(5, "enr_2").model_copy(update={"starts_at": again, "ends_at": NEXT_END})
    await service.publish(own.withdrawn(at=again), enrolled)

    async def is_enrolled_again() -> bool:
        return bool((await own.pool())["enrollment_id"] == "enr_2")

    await eventually(is_enrolled_again)
    present = {"enr_2", lasting, further, *(window["window_id"] for window in (await windows(own)).values())}

    async def left() -> tuple[set[str], int, int, date | None]:
        """The facts that have events, how much use of quotas was published or crossed them, the first adoption day."""
        facts = {row["subject"] for row in await service.admin.fetch("select subject from fact_event")}
        told, crossed = [
            await service.admin.fetchval(f"select count(*) from {table}") for table in ("quota_use", "quota_event")
        ]
        return facts, told, crossed, await service.admin.fetchval("select min(day) from adoption_day")

    async def is_left(events: set[str], told: int, crossed: int, day: date) -> bool:
        assert await left() == (events, told, crossed, day)
        return True

    facts, *others = await left()
    assert (facts > present, others) == (True, [1, 3, LATER.date()])
    period_end = datetime(2025, 11, 1, tzinfo=UTC)

    async def past_uses_are_left(count: int) -> bool:
        assert await service.admin.fetchval("select count(*) from quota_use_history") == count
        return True

    service.clock.move(period_end + 30 * DAY - timedelta(hours=1))
    await eventually(partial(past_uses_are_left, 1))
    service.clock.move(period_end + 30 * DAY)
    await eventually(partial(past_uses_are_left, 0))
    assert (await own.get("pool", at=text(period_end - timedelta(hours=1)))).status_code == 422
    service.clock.move(period_end + 45 * DAY - timedelta(hours=1))
    await eventually(partial(is_left, present | {ending}, 1, 3, LATER.date()))
    service.clock.move(period_end + 45 * DAY)
    await eventually(partial(is_left, present | {ending}, 0, 0, LATER.date()))
    await own.assign(1)
    explained = await get(own, "checks/explanation", subject=address(1), feature="frontier-models")
    assert all(explained[part]["events"] for part in ("enrollment", "window"))
    assert [each["grant_id"] for each in explained["grants"] if each["events"]] == [lasting]
    service.clock.move(LATER + 762 * DAY - timedelta(hours=1))  # 25 months
    await eventually(partial(is_left, present, 0, 0, LATER.date()))
    service.clock.move(LATER + 762 * DAY)
    await eventually(partial(is_left, present, 0, 0, LATER.date() + DAY))

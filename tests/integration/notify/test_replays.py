"""A replay sends an endpoint what it missed, in order, and before newer events."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from muster_notify.bootstrap import build
from muster_notify.repository import deliveries, replays
from muster_notify.settings import NotifySettings
from muster_notify.workers import replayer
from muster_runtime.database import locks
from muster_runtime.process.roles import ALL_ROLES, Role
from tests.integration.notify.conftest import START, Notify, reinstated
from tests.integration.notify.disabled import TYPES, disabled, enable, replay, replayed
from tests.integration.notify.receiver import Receiver, Request
from tests.support.clocks import ShiftedClock
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner

HOUR = timedelta(hours=1)


async def test_what_an_endpoint_missed_is_replayed_in_order_before_newer_events(
    notify: Notify, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replayer, "STEP", 3)
    webhook = await disabled(notify, receiver)
    await notify.service.publish(*(reinstated() for _ in range(10)))
    missed = await notify.until(11, channel="webhook", state="failed", limit="50")
    assert {d["last_error"] for d in missed} == {"answered 410", "the endpoint is disabled"}
    assert receiver.requests == []

    refused = await replay(notify, webhook)
    assert (refused.status_code, "enable it" in refused.json()["detail"]) == (409, True)
    await enable(notify, webhook)
    answer = await replay(notify, webhook)
    assert answer.status_code == 202, answer.text
    await notify.service.publish(reinstated(), reinstated())
    done = await replayed(notify, answer.headers["location"])
    assert (done["state"], done["replayed"], done["webhook_id"]) == ("done", 11, webhook["webhook_id"])
    await notify.until(13, channel="webhook", state="delivered", limit="50")
    assert receiver.sequences("NASA") == list(range(1, 14))
    assert await notify.service.admin.fetchval("select count(*) from audit where command = 'ReplayWebhook'") == 1


async def test_a_replay_begins_at_an_instant_and_covers_every_agency_of_an_operators_endpoint(
    notify: Notify, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replayer, "STEP", 2)
    webhook = await disabled(notify, receiver, "*")
    notify.move(hours=1)
    await notify.service.publish(*(reinstated(agency) for agency in ("NASA", "EPA", "DOE") * 3))
    for agency in ("EPA", "DOE"):
        await notify.until(3, agency, channel="webhook", state="failed")
    await notify.until(4, "NASA", channel="webhook", state="failed")
    await enable(notify, webhook)
    answer = await replay(notify, webhook, (START + HOUR).isoformat())
    assert (await replayed(notify, answer.headers["location"]))["replayed"] == 9
    for agency in ("EPA", "DOE"):
        await notify.until(3, agency, channel="webhook", state="delivered")
        assert receiver.sequences(agency) == [1, 2, 3]
    await notify.until(3, "NASA", channel="webhook", state="delivered")
    assert receiver.sequences("NASA") == [2, 3, 4]  # the first was missed before


async def test_a_replay_since_the_disabling_covers_agencies_whose_last_instant_is_earlier(
    run_service: ServiceRunner, receiver: Receiver
) -> None:
    settings: dict[str, Any] = {"webhook_allow_private": True, "webhook_timeout_seconds": 30}
    notify = Notify(await run_service(build, NotifySettings, **settings))
    notify.service.clock.move(START)
    later = asyncio.Event()

    async def hold(request: Request) -> None:
        if request.event["agency_id"] == "NASA":
            await later.wait()

    receiver.delay = hold
    receiver.answer = lambda request: 410 if request.event["agency_id"] == "NASA" else 503
    webhook = await notify.add_webhook(receiver.url, "*", event_types=TYPES)
    await notify.service.publish(reinstated(), reinstated("DOE"))
    await notify.waits("answered 503", "DOE")
    await notify.service.publish(reinstated(), time=START + HOUR)
    await notify.until(2, channel="webhook")
    await eventually(lambda: receiver.sequences("NASA"))
    later.set()

    async def is_disabled() -> Any:
        return (await notify.get("/v1/webhooks?state=disabled")).json()["items"]

    (found,) = await eventually(is_disabled)
    since = found["disabled_at"]
    assert since == "2025-08-06T01:00:00Z"
    notify.move(seconds=5)
    await notify.until(1, "DOE", channel="webhook", state="failed")
    await notify.service.publish(reinstated("EPA"))
    await notify.until(1, "EPA", channel="webhook", state="failed")

    receiver.answer = lambda _: 204
    await enable(notify, webhook)
    answer = await replay(notify, webhook, since)
    await replayed(notify, answer.headers["location"])
    notify.move(hours=1)
    for agency in ("DOE", "EPA"):
        await notify.until(1, agency, channel="webhook", state="delivered")


async def test_a_replay_to_a_receiver_that_is_gone_again_stops(
    notify: Notify, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replayer, "STEP", 1)
    webhook = await disabled(notify, receiver)
    await notify.service.publish(*(reinstated() for _ in range(4)))
    await notify.until(5, channel="webhook", state="failed")
    await enable(notify, webhook)
    receiver.answer = lambda _: 410
    answer = await replay(notify, webhook)
    done = await replayed(notify, answer.headers["location"])
    assert done["state"] in ("stopped", "done")  # whichever was first, the receiver's answer or the last step
    await notify.until(5, channel="webhook", state="failed")
    assert len(receiver.requests) == 1
    assert (await notify.get("/v1/webhooks?state=disabled")).json()["items"]


@pytest.mark.parametrize(
    ("change", "becomes", "ends"),
    [
        ("update webhook set state = 'disabled'", "failed", "stopped"),
        ("update webhook set state = 'deleted'", "failed", "stopped"),
        ("delete from delivery where state = 'failed'", "delivered", "done"),  # as a purge does
    ],
    ids=["disabled", "deleted", "purged"],
)
async def test_what_a_replay_holds_is_free_once_it_is_over(
    run_service: ServiceRunner, receiver: Receiver, change: str, becomes: str, ends: str
) -> None:
    settings: dict[str, Any] = {"webhook_allow_private": True}
    service = await run_service(build, NotifySettings, roles=ALL_ROLES - {Role.WORKER}, **settings)
    notify = Notify(service)
    service.clock.move(START)
    webhook = await notify.add_webhook(receiver.url, "*", event_types=TYPES)
    await service.admin.execute("update webhook set state = 'disabled'")
    await service.publish(reinstated())
    await notify.until(channel="webhook", state="failed")
    await enable(notify, webhook)
    assert (await replay(notify, webhook)).status_code == 202
    await service.publish(reinstated())
    (held,) = await notify.until(channel="webhook", state="pending")
    await service.admin.execute(change)
    worker = await run_service(build, NotifySettings, roles=frozenset({Role.WORKER}), beside=service, **settings)
    worker.clock.move(START)

    async def over() -> bool:
        (found,) = [d for d in await notify.deliveries() if d["delivery_id"] == held["delivery_id"]]
        return bool(found["state"] == becomes)

    await eventually(over)
    assert await service.admin.fetchval("select state from replay") == ends


async def test_a_replay_holds_only_what_is_newer_than_what_an_agency_still_misses(
    run_service: ServiceRunner, receiver: Receiver
) -> None:
    roles = ALL_ROLES - {Role.WORKER}  # the worker would end the replay
    service = await run_service(build, NotifySettings, roles=roles, webhook_allow_private=True)
    notify, admin = Notify(service), service.admin
    service.clock.move(START)

    async def held() -> list[str]:
        query = "select agency_id from delivery as d where state = 'pending' and held_by_replay(d) order by agency_id"
        return [row["agency_id"] for row in await admin.fetch(query)]

    webhook = await notify.add_webhook(receiver.url, "*", event_types=TYPES)
    await service.publish(reinstated("NASA"))  # waits, and is older than what NASA misses
    await notify.until(1, "NASA", channel="webhook", state="pending")
    await admin.execute("update webhook set state = 'disabled'")
    await service.publish(reinstated("DOE"))  # before the replay's instant
    await notify.until(1, "DOE", state="failed")
    notify.move(hours=1)
    await service.publish(reinstated("NASA"), reinstated("EPA"))
    for agency_id in ("NASA", "EPA"):
        await notify.until(1, agency_id, state="failed")
    await enable(notify, webhook)
    assert (await replay(notify, webhook, (START + HOUR).isoformat())).status_code == 202
    await service.publish(*map(reinstated, ("NASA", "DOE", "EPA", "VA")))
    for agency_id, waiting in (("NASA", 2), ("DOE", 1), ("EPA", 1), ("VA", 1)):
        await notify.until(waiting, agency_id, channel="webhook", state="pending")
    assert await held() == ["EPA", "NASA"]
    agencies = ("NASA", "DOE", "EPA", "VA")
    async with service.runtime.database.write(*agencies, context=CONTEXT) as uow:
        await uow.connection.execute("update delivery set next_attempt_at = null where channel = 'webhook'")
        lanes = [(agency_id, webhook["webhook_id"]) for agency_id in agencies]
        next_ones = await deliveries.save_heads_as_due(uow.connection, lanes, uow.now)
    assert {each.agency_id for each in next_ones} == {"NASA", "DOE", "VA"}
    past_epas = "select agency_id, position from delivery where agency_id = 'EPA' and state = 'failed'"
    await admin.execute(f"update replay set (place_agency_id, place_position) = ({past_epas})")
    assert await held() == ["NASA"]


async def test_a_second_replay_of_an_endpoint_waits_for_the_end_of_the_first(run_service: ServiceRunner) -> None:
    roles = ALL_ROLES - {Role.WORKER}  # the worker would end the first
    notify = Notify(await run_service(build, NotifySettings, roles=roles, webhook_allow_private=True))
    notify.service.clock.move(START)
    webhook = await notify.add_webhook("http://127.0.0.1:1/hook")
    first, second = await replay(notify, webhook), await replay(notify, webhook)
    assert (first.status_code, second.status_code) == (202, 409)
    assert first.json()["replay_id"] in second.json()["detail"]
    other = await notify.add_webhook("http://127.0.0.1:2/hook")
    location = first.headers["location"]
    of_other = location.replace(webhook["webhook_id"], other["webhook_id"])
    assert [(await notify.get(path)).status_code for path in (location, of_other)] == [200, 404]


async def test_two_processes_take_each_step_of_a_replay_once(
    run_service: ServiceRunner, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replayer, "STEP", 3)
    roles = ALL_ROLES - {Role.WORKER}
    notify = Notify(await run_service(build, NotifySettings, roles=roles, webhook_allow_private=True))
    notify.service.clock.move(START)
    webhook = await notify.add_webhook(receiver.url, event_types=TYPES)
    await notify.service.admin.execute("update webhook set state = 'disabled'")
    await notify.service.publish(*(reinstated() for _ in range(3)))
    await notify.until(3, channel="webhook", state="failed")
    await enable(notify, webhook)
    location = (await replay(notify, webhook)).headers["location"]
    runtime = notify.service.runtime
    async with runtime.database.connection() as connection:
        (running,) = await replays.list_running(connection)

    async def both_wait() -> bool:
        waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'advisory'"
        return bool(await notify.service.admin.fetchval(waiting) == 2)

    async with runtime.database.write("NASA", context=CONTEXT):
        steps = [asyncio.create_task(replayer._step(runtime, running)) for _ in range(2)]
        await eventually(both_wait)
    await asyncio.gather(*steps)
    assert (await notify.get(location)).json()["replayed"] == 3


async def test_a_replay_gives_no_agency_the_time_of_one_ahead_of_the_clock(
    run_service: ServiceRunner, receiver: Receiver
) -> None:
    """Otherwise, the other agencies' deliveries would wait until the clock has caught up."""
    clock, agencies = ShiftedClock(timedelta()), ("NASA", "DOE")
    roles = ALL_ROLES - {Role.WORKER}
    service = await run_service(build, NotifySettings, roles=roles, clock=clock, webhook_allow_private=True)
    notify, admin, database = Notify(service), service.admin, service.runtime.database
    webhook = await notify.add_webhook(receiver.url, "*", event_types=TYPES)
    await admin.execute("update webhook set state = 'disabled'")
    await service.publish(*map(reinstated, agencies), time=clock.now())
    for agency_id in agencies:
        await notify.until(1, agency_id, channel="webhook", state="failed")
    await enable(notify, webhook)
    assert (await replay(notify, webhook)).status_code == 202
    ahead = clock.now() + timedelta(seconds=50)
    await admin.execute("update agency_instant set latest = $1 where agency_id = 'NASA'", ahead)
    await admin.execute("update replay set requested_at = $1", ahead)  # as if the owner had been ahead, too
    async with database.connection() as connection:
        (running,) = await replays.list_running(connection)
        await replayer._step(service.runtime, running)
        latest = await locks.latest(connection, ["*", *agencies])
    soon = clock.now() + timedelta(seconds=1)
    assert {agency_id for agency_id, instant in latest.items() if instant > soon} == {"NASA"}
    due = await admin.fetch("select next_attempt_at from delivery where channel = 'webhook'")
    assert [row["next_attempt_at"] < soon for row in due] == [True, True]
    assert await admin.fetchval("select finished_at = requested_at from replay")


@pytest.mark.parametrize("since", ["2099-01-01T00:00:00Z", "2025-08-06", "yesterday"])
async def test_a_replay_from_no_past_instant_is_refused(notify: Notify, receiver: Receiver, since: str) -> None:
    webhook = await notify.add_webhook(receiver.url)
    answer = await replay(notify, webhook, since)
    assert answer.status_code == 422
    assert "since" in answer.text

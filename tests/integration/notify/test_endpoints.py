"""An endpoint that is disabled: it is announced, can be enabled again, and gets what it missed."""

from datetime import timedelta
from typing import Any

import pytest

from muster_contracts.notify import WebhookEndpointDisabled
from muster_notify import replayer
from muster_notify.bootstrap import build
from muster_notify.settings import NotifySettings
from muster_runtime.process import ALL_ROLES, Role
from tests.integration.notify.conftest import START, Notify, contact, paid, reinstated
from tests.integration.notify.mail import MailServer
from tests.integration.notify.receiver import Receiver
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner

HOUR = timedelta(hours=1)

# Not the announcement itself, which is a public event too.
TYPES = ["muster.enrollment.AgencyReinstated.v1", "muster.billing.InvoicePaid.v1"]


async def disabled(notify: Notify, receiver: Receiver, agency_id: str = "NASA") -> dict[str, Any]:
    """An endpoint whose receiver answered 410 to a first event of NASA's; the receiver is well again."""
    webhook = await notify.add_webhook(receiver.url, agency_id, event_types=TYPES)
    receiver.answer = lambda _: 410
    await notify.service.publish(reinstated())
    await notify.until(channel="webhook", state="failed")
    receiver.answer = lambda _: 204
    receiver.requests.clear()
    return webhook


async def enable(notify: Notify, webhook: dict[str, Any]) -> Any:
    return await notify.service.client.post(
        f"/v1/agencies/{webhook['agency_id']}/webhooks/{webhook['webhook_id']}/enable"
    )


async def replay(notify: Notify, webhook: dict[str, Any], since: str = START.isoformat()) -> Any:
    return await notify.service.client.post(
        f"/v1/agencies/{webhook['agency_id']}/webhooks/{webhook['webhook_id']}/replays", json={"since": since}
    )


async def replayed(notify: Notify, location: str) -> dict[str, Any]:
    """A replay, once it is over."""

    async def over() -> dict[str, Any] | None:
        found: dict[str, Any] = (await notify.get(location)).json()
        return found if found["state"] != "running" else None

    return dict(await eventually(over))


async def test_a_disabled_endpoint_is_announced(notify: Notify, receiver: Receiver, mail: MailServer) -> None:
    await notify.service.publish(contact())
    webhook = await disabled(notify, receiver)

    async def published() -> list[Any]:
        return await notify.service.published(WebhookEndpointDisabled)

    (event,) = await eventually(published)
    assert event.data == WebhookEndpointDisabled(
        agency_id="NASA", webhook_id=webhook["webhook_id"], failing_since=START, disabled_at=START
    )
    await eventually(lambda: any("webhook" in str(message["Subject"]) for message in mail.messages))
    assert set(mail.recipients) == {"ann@nasa.example"}
    health = (await notify.get("/health/ready")).json()
    assert (health["ready"], health["warnings"]) == (True, ["webhook endpoints are disabled: 1"])
    assert 'muster_webhooks_disabled{service="notify"} 1.0' in (await notify.get("/metrics")).text
    audited = await notify.service.admin.fetchrow("select * from audit where command = 'DisableWebhook'")
    assert audited is not None
    assert (audited["actor"], audited["agency_id"], audited["reason"]) == ("notify", "NASA", "answered 410")


async def test_an_agency_that_fails_for_fourteen_days_is_said_to_fail_since_the_first_day(
    notify: Notify, receiver: Receiver
) -> None:
    await notify.add_webhook(receiver.url, event_types=TYPES)
    receiver.answer = lambda _: 503
    await notify.service.publish(reinstated())
    last_but_one = await notify.fails("answered 503", 19)
    notify.move(days=1)
    await notify.until(channel="webhook", state="failed")

    async def published() -> list[Any]:
        return await notify.service.published(WebhookEndpointDisabled)

    (event,) = await eventually(published)
    assert event.data.failing_since == START
    assert event.data.disabled_at == last_but_one + timedelta(days=1)


async def test_an_endpoint_of_the_operators_is_no_agencys_fact(notify: Notify, receiver: Receiver) -> None:
    webhook = await disabled(notify, receiver, "*")
    assert (await notify.get("/health/ready")).json()["warnings"] == ["webhook endpoints are disabled: 1"]
    await notify.settle()
    assert await notify.service.published(WebhookEndpointDisabled) == []
    listed = (await notify.get("/v1/webhooks?state=disabled")).json()["items"]
    assert [(w["webhook_id"], w["agency_id"]) for w in listed] == [(webhook["webhook_id"], "*")]


async def test_disabled_endpoints_of_all_agencies_are_listed_for_operators_alone(
    notify: Notify, receiver: Receiver
) -> None:
    await notify.add_webhook(receiver.url, "EPA")
    webhook = await disabled(notify, receiver)
    listed = (await notify.get("/v1/webhooks?state=disabled")).json()["items"]
    assert [(w["webhook_id"], w["disabled_at"]) for w in listed] == [(webhook["webhook_id"], "2025-08-06T00:00:00Z")]
    assert len((await notify.get("/v1/webhooks")).json()["items"]) == 2
    epa = {"Authorization": f"Bearer {notify.service.token('notify:read', agency='EPA')}"}
    assert (await notify.get("/v1/webhooks", **epa)).status_code == 403


async def test_an_endpoint_is_enabled_again_with_its_secret(notify: Notify, receiver: Receiver) -> None:
    webhook = await disabled(notify, receiver)
    answer = await enable(notify, webhook)
    assert (answer.status_code, answer.json()["state"], answer.json()["state_reason"]) == (200, "enabled", None)
    assert "secret" not in answer.json()
    await notify.service.publish(paid())
    await eventually(lambda: receiver.requests)
    assert receiver.requests[-1].verified(webhook["secret"])["type"] == "muster.billing.InvoicePaid.v1"
    assert await notify.service.admin.fetchval("select count(*) from audit where command = 'EnableWebhook'") == 1
    again = await enable(notify, webhook)
    assert (again.status_code, "already enabled" in again.json()["detail"]) == (409, True)
    assert (await notify.get("/health/ready")).json()["warnings"] == []


async def test_what_an_endpoint_missed_is_replayed_in_order_before_what_comes_after(
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


async def test_a_replay_of_a_receiver_that_is_gone_once_more_stops(
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
    ("change", "becomes"),
    [
        ("update webhook set state = 'disabled'", "failed"),
        ("delete from delivery where state = 'failed'", "delivered"),  # as a purge does
    ],
    ids=["stopped", "purged"],
)
async def test_what_a_replay_holds_is_free_once_it_is_over(
    run_service: ServiceRunner, receiver: Receiver, change: str, becomes: str
) -> None:
    settings: dict[str, Any] = {"webhook_allow_private": True}
    service = await run_service(build, NotifySettings, roles=ALL_ROLES - {Role.SCHEDULER}, **settings)
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
    worker = await run_service(build, NotifySettings, roles=frozenset({Role.SCHEDULER}), beside=service, **settings)
    worker.clock.move(START)

    async def over() -> bool:
        (found,) = [d for d in await notify.deliveries() if d["delivery_id"] == held["delivery_id"]]
        return bool(found["state"] == becomes)

    await eventually(over)


async def test_failures_before_an_endpoint_was_enabled_again_do_not_disable_it(
    notify: Notify, receiver: Receiver
) -> None:
    """One that gets every agency's events has a lane for each, and they fail at different times."""
    webhook = await notify.add_webhook(receiver.url, "*", event_types=TYPES)
    receiver.answer = lambda _: 503
    await notify.service.publish(reinstated("EPA"))
    await notify.until(1, "EPA", channel="webhook")
    for _ in range(13):
        await notify.settle()
        notify.move(days=1)
    await notify.settle()
    receiver.answer = lambda _: 410
    await notify.service.publish(reinstated("NASA"))
    await notify.until(channel="webhook", state="failed")
    assert (await enable(notify, webhook)).status_code == 200
    receiver.answer = lambda _: 503
    (waiting,) = await notify.until(1, "EPA", channel="webhook", state="pending")
    notify.move(days=1)
    again = await notify.waits("answered 503", "EPA", waiting["attempts"] + 1)
    assert again["next_attempt_at"] == "2025-08-20T00:00:05Z"
    assert (await notify.get("/v1/webhooks?state=disabled")).json()["items"] == []


async def test_a_second_replay_of_an_endpoint_waits_for_the_end_of_the_first(run_service: ServiceRunner) -> None:
    roles = ALL_ROLES - {Role.SCHEDULER}  # whose worker would end the first
    notify = Notify(await run_service(build, NotifySettings, roles=roles, webhook_allow_private=True))
    notify.service.clock.move(START)
    webhook = await notify.add_webhook("http://127.0.0.1:1/hook")
    first, second = await replay(notify, webhook), await replay(notify, webhook)
    assert (first.status_code, second.status_code) == (202, 409)
    assert first.json()["replay_id"] in second.json()["detail"]


@pytest.mark.parametrize("since", ["2099-01-01T00:00:00Z", "2025-08-06", "yesterday"])
async def test_a_replay_since_no_instant_of_the_past_is_refused(notify: Notify, receiver: Receiver, since: str) -> None:
    webhook = await notify.add_webhook(receiver.url)
    answer = await replay(notify, webhook, since)
    assert answer.status_code == 422
    assert "since" in answer.text


@pytest.mark.parametrize("owner", ["NASA", "*"])
async def test_a_retry_to_a_disabled_endpoint_is_refused(notify: Notify, receiver: Receiver, owner: str) -> None:
    webhook = await disabled(notify, receiver, owner)
    (failed,) = await notify.deliveries(channel="webhook", state="failed")
    path = f"/v1/agencies/NASA/deliveries/{failed['delivery_id']}/retry"
    answer = await notify.service.client.post(path)
    assert answer.status_code == 409
    assert f"{webhook['webhook_id']}, which is disabled: enable it first" in answer.json()["detail"]
    await notify.service.client.delete(f"/v1/agencies/{owner}/webhooks/{webhook['webhook_id']}")
    answer = await notify.service.client.post(path)
    assert (answer.status_code, "which is deleted" in answer.json()["detail"]) == (409, True)


async def test_a_retry_keeps_the_first_attempt_and_begins_the_schedule_again(
    notify: Notify, receiver: Receiver
) -> None:
    webhook = await disabled(notify, receiver)
    (failed,) = await notify.deliveries(channel="webhook", state="failed")
    assert failed["first_attempt_at"] == "2025-08-06T00:00:00Z"
    notify.move(days=20)
    await enable(notify, webhook)
    receiver.answer = lambda _: 503
    path = f"/v1/agencies/NASA/deliveries/{failed['delivery_id']}"
    assert (await notify.service.client.post(f"{path}/retry")).status_code == 200
    waiting = await notify.waits("answered 503", attempts=2)
    assert waiting["first_attempt_at"] == "2025-08-06T00:00:00Z"
    assert waiting["next_attempt_at"] == "2025-08-26T00:00:05Z"  # not given up, although 14 days are long over
    log = (await notify.get(path)).json()["log"]
    assert [attempt["number"] for attempt in log] == [1, 2]


async def test_a_retry_waits_behind_what_is_older(notify: Notify, receiver: Receiver) -> None:
    webhook = await disabled(notify, receiver)
    await notify.service.publish(reinstated())
    newer, older = await notify.until(2, channel="webhook", state="failed")
    await enable(notify, webhook)
    receiver.answer = lambda _: 503
    client = notify.service.client
    await client.post(f"/v1/agencies/NASA/deliveries/{older['delivery_id']}/retry")
    await notify.waits("answered 503", attempts=2)
    answer = await client.post(f"/v1/agencies/NASA/deliveries/{newer['delivery_id']}/retry")
    assert (answer.status_code, answer.json()["state"], answer.json()["next_attempt_at"]) == (200, "pending", None)
    receiver.answer = lambda _: 200
    notify.move(seconds=5)
    await notify.until(2, channel="webhook", state="delivered")
    assert receiver.sequences("NASA") == [1, 1, 2]

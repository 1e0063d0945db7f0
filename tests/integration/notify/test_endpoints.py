"""An endpoint that is disabled: it is announced, and can be enabled again."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from muster_contracts.notify import WebhookEndpointDisabled
from tests.integration.notify.conftest import START, Notify, contact, enrolled, paid, reinstated
from tests.integration.notify.disabled import TYPES, disabled, enable
from tests.integration.notify.mail import MailServer
from tests.integration.notify.receiver import Receiver, Request
from tests.support.eventually import eventually


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
    metrics = (await notify.get("/metrics")).text
    assert 'muster_webhooks_disabled{service="notify"} 1.0' in metrics
    assert 'muster_warnings{about="service",service="notify"} 0.0' in metrics  # it has an alert of its own
    audited = await notify.service.admin.fetchrow("select * from audit where command = 'DisableWebhook'")
    assert audited is not None
    assert (audited["actor"], audited["agency_id"], audited["reason"]) == ("notify", "NASA", "answered 410")


async def test_an_endpoint_that_fails_for_fourteen_days_is_reported_as_failing_since_the_first_day(
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
    await _warns_only_of(notify, "webhook endpoints are disabled: 1")
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
    assert answer.json()["disabled_at"] == "2025-08-06T00:00:00Z"  # a replay begins there
    assert "secret" not in answer.json()
    await notify.service.publish(paid())
    await eventually(lambda: receiver.requests)
    assert receiver.requests[-1].verified(webhook["secret"])["type"] == "muster.billing.InvoicePaid.v1"
    assert await notify.service.admin.fetchval("select count(*) from audit where command = 'EnableWebhook'") == 1
    again = await enable(notify, webhook)
    assert (again.status_code, "already enabled" in again.json()["detail"]) == (409, True)
    await _warns_only_of(notify)


async def test_an_endpoint_that_is_deleted_during_an_attempt_stays_deleted(notify: Notify, receiver: Receiver) -> None:
    webhook = await notify.add_webhook(receiver.url)
    deleted = asyncio.Event()

    async def wait(_: Request) -> None:
        await deleted.wait()

    receiver.delay, receiver.answer = wait, lambda _: 410
    await notify.service.publish(reinstated())
    await eventually(lambda: receiver.requests)
    path = f"/v1/agencies/NASA/webhooks/{webhook['webhook_id']}"
    assert (await notify.service.client.delete(path)).status_code == 204
    deleted.set()
    (delivery,) = await notify.until(channel="webhook", state="failed")
    assert delivery["last_error"] == "answered 410"
    assert await notify.service.admin.fetchval("select state from webhook") == "deleted"


async def rotate(notify: Notify, webhook: Any, key: str, **body: int) -> Any:
    path = f"/v1/agencies/{webhook['agency_id']}/webhooks/{webhook['webhook_id']}/secret-rotation"
    return await notify.service.client.post(path, json=body, headers={"Idempotency-Key": key})


async def test_while_a_secret_is_rotated_the_previous_one_signs_as_well(notify: Notify, receiver: Receiver) -> None:
    webhook = await notify.add_webhook(receiver.url)
    answer = await rotate(notify, webhook, "first")
    assert answer.status_code == 200
    rotated = answer.json()
    assert rotated["previous_secret_until"] == "2025-08-07T00:00:00Z"
    repeated = (await rotate(notify, webhook, "first")).json()
    assert (repeated["secret"], repeated["previous_secret_until"]) == (None, rotated["previous_secret_until"])

    await notify.service.publish(enrolled())
    await eventually(lambda: receiver.requests)
    for secret in (webhook["secret"], rotated["secret"]):
        assert receiver.requests[0].verified(secret)["agency_id"] == "NASA"

    notify.move(days=1)
    await notify.service.publish(paid())
    await eventually(lambda: len(receiver.requests) == 2)
    assert receiver.requests[1].verified(rotated["secret"])
    with pytest.raises(WebhookVerificationError):
        receiver.requests[1].verified(webhook["secret"])

    leaked = rotated["secret"]
    newest = (await rotate(notify, webhook, "leak", overlap_hours=0)).json()
    assert newest["previous_secret_until"] is None
    await notify.service.publish(reinstated())
    await eventually(lambda: len(receiver.requests) == 3)
    assert receiver.requests[2].verified(newest["secret"])
    with pytest.raises(WebhookVerificationError):
        receiver.requests[2].verified(leaked)

    audited = await notify.service.admin.fetch("select * from audit where command = 'RotateWebhookSecret'")
    stored = await notify.service.admin.fetch("select * from webhook")
    assert len(audited) == 2
    assert not any(secret in f"{audited} {stored}" for secret in (webhook["secret"], leaked, newest["secret"]))
    assert (await rotate(notify, webhook, "long", overlap_hours=73)).status_code == 422
    assert (await rotate(notify, {**webhook, "agency_id": "EPA"}, "other")).status_code == 404


async def test_failures_before_an_endpoint_was_enabled_again_do_not_disable_it(
    notify: Notify, receiver: Receiver
) -> None:
    """An endpoint that gets every agency's events has a lane for each, and they fail at different times."""
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


async def _warns_only_of(notify: Notify, *warnings: str) -> None:
    """These warnings are left once notify knows the ends of the directory's topics, which takes a moment."""

    async def warned() -> bool:
        found: list[str] = (await notify.get("/health/ready")).json()["warnings"]
        return found == [*warnings]

    await eventually(warned)

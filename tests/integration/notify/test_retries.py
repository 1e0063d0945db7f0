"""A retry attempts one delivery again, unless its endpoint is disabled or an earlier delivery is pending."""

from datetime import timedelta

import pytest

from muster_notify.bootstrap import build
from muster_notify.settings import NotifySettings
from muster_runtime.process.roles import ALL_ROLES, Role
from tests.integration.notify.conftest import START, Notify, reinstated
from tests.integration.notify.disabled import disabled, enable, replay
from tests.integration.notify.receiver import Receiver
from tests.support.services import ServiceRunner


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
    assert waiting["next_attempt_at"] == "2025-08-26T00:00:05Z"  # not given up, although 14 days have long passed
    log = (await notify.get(path)).json()["log"]
    assert [attempt["number"] for attempt in log] == [1, 2]


async def test_a_retry_of_what_waits_begins_the_schedule_again(notify: Notify, receiver: Receiver) -> None:
    await notify.add_webhook(receiver.url)
    receiver.answer = lambda _: 503
    await notify.service.publish(reinstated())
    last = await notify.fails("answered 503", 3)
    (waiting,) = await notify.deliveries(channel="webhook")
    answer = await notify.service.client.post(f"/v1/agencies/NASA/deliveries/{waiting['delivery_id']}/retry")
    assert answer.status_code == 200
    waiting = await notify.waits("answered 503", attempts=4)
    assert waiting["next_attempt_at"] == (last + timedelta(seconds=5)).isoformat().replace("+00:00", "Z")


async def test_a_retry_to_an_endpoint_that_is_being_replayed_is_refused(
    run_service: ServiceRunner, receiver: Receiver
) -> None:
    """The replay sends the delivery in its turn."""
    roles = ALL_ROLES - {Role.WORKER}  # the worker would end the replay
    notify = Notify(await run_service(build, NotifySettings, roles=roles, webhook_allow_private=True))
    notify.service.clock.move(START)
    webhook = await notify.add_webhook(receiver.url)
    await notify.service.admin.execute("update webhook set state = 'disabled'")
    await notify.service.publish(reinstated())
    (failed,) = await notify.until(channel="webhook", state="failed")
    await enable(notify, webhook)
    running = (await replay(notify, webhook)).json()["replay_id"]
    refused = await notify.service.client.post(f"/v1/agencies/NASA/deliveries/{failed['delivery_id']}/retry")
    assert (refused.status_code, running in refused.json()["detail"]) == (409, True)
    (still,) = await notify.deliveries(channel="webhook")
    assert still["state"] == "failed"


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

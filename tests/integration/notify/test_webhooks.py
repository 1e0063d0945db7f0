"""Webhooks to a real receiver: signed, in order, once per intent, and given up in the end."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from muster_notify.adapters.addresses import AddressPolicy
from muster_notify.adapters.vault import Vault
from muster_notify.adapters.webhooks import WebhookSender
from muster_notify.bootstrap import build
from muster_notify.domain.deliveries import Channel, Delivery, Outcome
from muster_notify.settings import NotifySettings
from muster_notify.workers.dispatcher import SLOTS
from muster_runtime.clock import SystemClock
from muster_runtime.database.transactions import Database
from muster_runtime.service import Service
from tests.integration.notify.conftest import START, Notify, enrolled, paid, reinstated, seat_assigned, with_sender
from tests.integration.notify.receiver import Receiver, Request
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner


async def test_a_receiver_can_verify_what_it_gets(notify: Notify, receiver: Receiver) -> None:
    webhook = await notify.add_webhook(receiver.url)
    (envelope,) = await notify.service.publish(enrolled())
    (delivery,) = await notify.until(channel="webhook", state="delivered")
    (request,) = receiver.requests
    assert request.verified(webhook["secret"]) == {
        "type": "muster.enrollment.AgencyEnrolled.v1",
        "timestamp": envelope.time.isoformat().replace("+00:00", "Z"),
        "id": envelope.id,
        "agency_id": "NASA",
        "topic": "muster.enrollment.agency",
        "epoch": 1,
        "sequence": 1,
        "data": enrolled().model_dump(mode="json"),
    }
    assert request.id == delivery["delivery_id"]
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    signed_at = datetime.fromtimestamp(int(request.headers["webhook-timestamp"]), UTC)
    assert abs(SystemClock().now() - signed_at) < timedelta(minutes=1)


async def test_what_was_tampered_with_is_not_verified(notify: Notify, receiver: Receiver) -> None:
    webhook = await notify.add_webhook(receiver.url)
    await notify.service.publish(enrolled())
    await notify.until(channel="webhook", state="delivered")
    (request,) = receiver.requests
    for forged in (
        replace(request, body=request.body.replace(b"NASA", b"EPA")),
        replace(request, headers={**request.headers, "webhook-id": "dlv_other"}),
        replace(request, headers={**request.headers, "webhook-timestamp": "1754438400"}),
    ):
        with pytest.raises(WebhookVerificationError):
            forged.verified(webhook["secret"])


async def test_a_receiver_that_recovers_gets_everything_in_order_and_once(notify: Notify, receiver: Receiver) -> None:
    await notify.add_webhook(receiver.url)
    receiver.answer = lambda _: 503
    await notify.service.publish(enrolled(), reinstated(), reinstated())
    await notify.until(3, channel="webhook", state="pending")
    await eventually(lambda: receiver.requests)
    await notify.settle()
    assert receiver.sequences("NASA") == [1]  # the others wait behind the first
    receiver.answer = lambda _: 200
    notify.move(seconds=5)
    await notify.until(3, channel="webhook", state="delivered")
    assert receiver.sequences("NASA") == [1, 1, 2, 3]
    assert receiver.requests[0].id == receiver.requests[1].id
    assert len({request.id for request in receiver.requests}) == 3


async def test_agencies_for_which_a_receiver_is_slow_hold_up_no_other(notify: Notify, receiver: Receiver) -> None:
    await notify.add_webhook(receiver.url, "*")
    slow = [f"SLOW-{number}" for number in range(SLOTS[Channel.WEBHOOK] // 3)]
    receiver.answer = lambda request: None if request.event["agency_id"] in slow else 204
    await notify.service.publish(*(reinstated(agency) for agency in slow))
    await eventually(lambda: len(receiver.requests) == len(slow))
    await notify.service.publish(enrolled("EPA"), reinstated("EPA"))
    await notify.until(2, "EPA", channel="webhook", state="delivered")
    assert receiver.sequences("EPA") == [1, 2]
    attempts = [
        delivery["attempts"] for agency in slow for delivery in await notify.deliveries(agency, channel="webhook")
    ]
    assert sum(attempts) == 0  # the dispatcher still waits for them


async def test_an_answer_that_does_not_come_is_an_error_in_the_log(notify: Notify, receiver: Receiver) -> None:
    await notify.add_webhook(receiver.url)
    receiver.answer = lambda _: None
    await notify.service.publish(reinstated())
    delivery = await notify.waits("no answer within 2 s")
    receiver.answer = lambda _: 200
    notify.move(seconds=5)
    await notify.until(channel="webhook", state="delivered")
    log = (await notify.get(f"/v1/agencies/NASA/deliveries/{delivery['delivery_id']}")).json()["log"]
    assert [(attempt["number"], attempt["outcome"], attempt["detail"]) for attempt in log] == [
        (1, "retry", "no answer within 2 s"),
        (2, "delivered", "answered 200"),
    ]
    assert log[0]["milliseconds"] >= 2000


async def test_a_repeated_event_makes_no_second_delivery(notify: Notify, receiver: Receiver) -> None:
    await notify.add_webhook(receiver.url)
    (envelope,) = await notify.service.publish(reinstated())
    await notify.until(channel="webhook", state="delivered")
    await notify.settle()
    # As after the loss of the last sequence: only the intent's own key reveals the duplicate.
    await notify.service.admin.execute("delete from applied where topic = 'muster.enrollment.agency'")
    await notify.service.producer.put(envelope, reinstated())
    await notify.service.publish(reinstated())
    await notify.until(2, channel="webhook", state="delivered")
    assert receiver.sequences("NASA") == [1, 2]


async def test_frequent_types_go_only_to_an_endpoint_that_names_them(notify: Notify, receiver: Receiver) -> None:
    every_type = await notify.add_webhook(receiver.url)
    seats_only = await notify.add_webhook(receiver.url, event_types=["muster.entitlements.SeatAssigned.v1"])
    await notify.service.publish(seat_assigned(), reinstated())
    found = await notify.until(2, channel="webhook", state="delivered")
    assert {(d["event_type"].split(".")[2], d["recipient"]) for d in found} == {
        ("SeatAssigned", seats_only["webhook_id"]),
        ("AgencyReinstated", every_type["webhook_id"]),
    }


async def test_an_endpoint_gets_its_own_agency_alone_and_the_operators_get_all(
    notify: Notify, receiver: Receiver
) -> None:
    await notify.add_webhook(receiver.url, "NASA")
    await notify.add_webhook(receiver.url, "*")
    await notify.service.publish(reinstated("NASA"), reinstated("EPA"))
    await notify.until(2, "NASA", channel="webhook", state="delivered")
    await notify.until(1, "EPA", channel="webhook", state="delivered")
    assert sorted(request.event["agency_id"] for request in receiver.requests) == ["EPA", "NASA", "NASA"]
    # Other agencies may have receivers at the same address.
    assert not any("cookie" in request.headers for request in receiver.requests)


async def test_an_endpoint_that_is_gone_is_disabled(notify: Notify, receiver: Receiver) -> None:
    webhook = await notify.add_webhook(receiver.url, "*")
    receiver.answer = lambda _: 410
    await notify.service.publish(reinstated(), paid())
    found = await notify.until(2, channel="webhook", state="failed")
    assert {delivery["last_error"] for delivery in found} <= {"answered 410", "the endpoint is disabled"}
    listed = (await notify.get("/v1/agencies/*/webhooks")).json()["items"]
    assert [(w["webhook_id"], w["state"], w["state_reason"]) for w in listed] == [
        (webhook["webhook_id"], "disabled", "answered 410")
    ]
    await notify.service.publish(reinstated())
    missed = await notify.until(3, channel="webhook", state="failed")
    assert (missed[0]["last_error"], missed[0]["attempts"]) == ("the endpoint is disabled", 0)


async def test_what_waits_for_a_deleted_endpoint_fails_and_it_keeps_neither_url_nor_secret(
    notify: Notify, receiver: Receiver
) -> None:
    webhook = await notify.add_webhook(receiver.url)
    receiver.answer = lambda _: 500
    await notify.service.publish(reinstated(), reinstated())
    await notify.waits("answered 500")
    await notify.until(2, channel="webhook")
    path = f"/v1/agencies/NASA/webhooks/{webhook['webhook_id']}"
    assert (await notify.service.client.post(f"{path}/secret-rotation", json={})).status_code == 200
    assert (await notify.service.client.delete(path)).status_code == 204
    kept = "select url, sealed_secret, previous_secret, previous_secret_until from webhook"
    assert tuple(await notify.service.admin.fetchrow(kept) or ()) == ("", None, None, None)
    notify.move(seconds=5)
    await notify.until(2, channel="webhook", state="failed")
    assert len(receiver.requests) == 1
    await notify.service.publish(reinstated())
    await notify.settle()
    assert len(await notify.deliveries(channel="webhook")) == 2


async def test_an_endpoint_that_is_deleted_during_its_last_attempt_stays_deleted(
    notify: Notify, receiver: Receiver
) -> None:
    webhook = await notify.add_webhook(receiver.url)
    deleted = asyncio.Event()

    async def until_deleted(_: Request) -> None:
        await deleted.wait()

    receiver.answer, receiver.delay = lambda _: 410, until_deleted
    await notify.service.publish(reinstated())
    await eventually(lambda: receiver.requests)
    response = await notify.service.client.delete(f"/v1/agencies/NASA/webhooks/{webhook['webhook_id']}")
    assert response.status_code == 204
    deleted.set()
    await notify.until(channel="webhook", state="failed")
    assert await notify.service.admin.fetchval("select state from webhook") == "deleted"
    assert await notify.service.admin.fetchval("select count(*) from audit where command = 'DisableWebhook'") == 0


class LosesItsFirstResult(WebhookSender):
    """Sends, and then loses the connection to the database before the result is recorded."""

    lost = False

    async def send(self, database: Database, delivery: Delivery, now: datetime) -> Outcome:
        outcome = await super().send(database, delivery, now)
        if not self.lost:
            self.lost = True
            raise ConnectionResetError
        return outcome


async def test_an_attempt_whose_result_is_lost_is_repeated_under_the_same_id(
    run_service: ServiceRunner, receiver: Receiver
) -> None:
    def build_with_loss(settings: NotifySettings) -> Service:
        return with_sender(
            settings, LosesItsFirstResult(Vault(settings.secret_key), AddressPolicy(allow_private=True), 2)
        )

    notify = Notify(await run_service(build_with_loss, NotifySettings, webhook_allow_private=True))
    await notify.add_webhook(receiver.url)
    await notify.service.publish(reinstated(), reinstated())
    found = await notify.until(2, channel="webhook", state="delivered")
    assert receiver.sequences("NASA") == [1, 1, 2]
    assert receiver.requests[0].id == receiver.requests[1].id
    assert [delivery["attempts"] for delivery in found] == [1, 1]


async def webhook_states(notify: Notify) -> list[str]:
    return [webhook["state"] for webhook in (await notify.get("/v1/agencies/NASA/webhooks")).json()["items"]]


async def test_an_endpoint_that_fails_for_fourteen_days_is_disabled(notify: Notify, receiver: Receiver) -> None:
    types = ["muster.enrollment.AgencyReinstated.v1", "muster.billing.InvoicePaid.v1"]
    await notify.add_webhook(receiver.url, event_types=types)
    receiver.answer = lambda _: 503
    await notify.service.publish(reinstated(), paid())
    await notify.until(2, channel="webhook")
    assert timedelta(days=12) < await notify.fails("answered 503", 19) - START < timedelta(days=13)
    notify.move(days=1)
    await notify.until(2, channel="webhook", state="failed")
    assert await webhook_states(notify) == ["disabled"]
    assert len(receiver.requests) == 20  # the second was never sent


async def test_an_outage_of_ours_is_not_held_against_an_endpoint(notify: Notify, receiver: Receiver) -> None:
    await notify.add_webhook(receiver.url)
    receiver.answer = lambda _: 503
    await notify.service.publish(reinstated())
    await notify.fails("answered 503", 2)
    notify.move(days=15)  # nobody has attempted anything for 15 days
    waiting = await notify.waits("answered 503", attempts=3)
    in_half_an_hour = notify.service.clock.now() + timedelta(minutes=30)
    assert waiting["next_attempt_at"] == in_half_an_hour.isoformat().replace("+00:00", "Z")
    assert await webhook_states(notify) == ["enabled"]
    receiver.answer = lambda _: 204
    notify.move(minutes=30)
    await notify.until(channel="webhook", state="delivered")


async def test_two_processes_attempt_each_delivery_once(
    notify: Notify, receiver: Receiver, run_service: ServiceRunner
) -> None:
    other = Notify(await run_service(build, NotifySettings, beside=notify.service, webhook_allow_private=True))
    other.service.clock.move(START)
    await notify.add_webhook(receiver.url, "*")
    agencies = [f"AGENCY-{number}" for number in range(8)]
    await notify.service.publish(*(reinstated(agency) for agency in agencies * 3))
    for agency in agencies:
        await notify.until(3, agency, channel="webhook", state="delivered")
    assert len(receiver.requests) == 24
    assert all(receiver.sequences(agency) == [1, 2, 3] for agency in agencies)

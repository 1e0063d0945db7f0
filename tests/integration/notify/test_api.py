"""The routes: who may do what, what is refused, and what is never shown."""

import base64
from typing import Any

import pytest

from muster_contracts.enrollment import AgencySuspended
from muster_notify.bootstrap import build
from muster_notify.settings import NotifySettings
from muster_runtime.database.transactions import EVERY_AGENCY
from tests.integration.notify.conftest import START, Notify, contact, enrolled, reinstated
from tests.integration.notify.mail import MailServer
from tests.integration.notify.receiver import Receiver
from tests.support.services import ServiceRunner

URL = "https://agency.example/hook"


def bearer(notify: Notify, *scopes: str, agency: str = EVERY_AGENCY) -> dict[str, str]:
    return {"Authorization": f"Bearer {notify.service.token(*scopes, agency=agency)}"}


async def post(notify: Notify, agency_id: str = "NASA", json: Any = None, **headers: str) -> Any:
    return await notify.service.client.post(f"/v1/agencies/{agency_id}/webhooks", json=json, headers=headers)


async def test_the_secret_is_shown_once_and_sealed_at_rest(notify: Notify) -> None:
    webhook = await notify.add_webhook(URL, event_types=["muster.billing.InvoicePaid.v1"])
    secret = webhook.pop("secret")
    assert secret.startswith("whsec_")
    assert webhook["url"] == URL
    webhook["url"] = "https://agency.example/…"
    assert (await notify.get("/v1/agencies/NASA/webhooks")).json() == {"items": [webhook], "next": None}
    stored = await notify.service.admin.fetchrow("select * from webhook")
    audited = await notify.service.admin.fetchrow("select * from audit")
    assert secret not in f"{stored} {audited}"
    assert audited is not None
    assert (audited["command"], audited["subject"]) == ("AddWebhook", webhook["webhook_id"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": "ftp://agency.example/"}, "url"),
        ({"url": "https://user@agency.example/"}, "url"),
        ({"url": 7}, "url"),
        ({}, "url"),
        ({"url": URL, "event_types": []}, "event_types"),
        ({"url": URL, "event_types": ["muster.billing.NoSuchThing.v1"]}, "event_types"),
        ({"url": URL, "event_types": ["muster.enrollment.ContactRecorded.v1"]}, "event_types"),
        ({"url": URL, "color": "red"}, "color"),
    ],
)
async def test_a_webhook_that_breaks_a_rule_is_refused_by_its_field(
    notify: Notify, body: dict[str, Any], field: str
) -> None:
    response = await post(notify, json=body)
    assert response.status_code == 422
    assert field in response.json()["errors"][0]["field"]
    assert await notify.service.admin.fetchval("select count(*) from webhook") == 0


async def test_private_addresses_and_http_are_refused_by_default(run_service: ServiceRunner) -> None:
    notify = Notify(await run_service(build, NotifySettings))
    for url in ("http://agency.example/", "https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/meta"):
        assert (await post(notify, json={"url": url})).status_code == 422


async def test_a_tenant_sees_and_changes_its_own_endpoints_alone(notify: Notify) -> None:
    nasa = await notify.add_webhook(URL, "NASA")
    await notify.add_webhook(URL, "*")
    epa = bearer(notify, "notify:read", "notify:write", agency="EPA")
    assert (await notify.get("/v1/agencies/NASA/webhooks", **epa)).status_code == 404
    assert (await notify.get("/v1/agencies/*/webhooks", **epa)).status_code == 404
    assert (await notify.get("/v1/agencies/EPA/webhooks", **epa)).json()["items"] == []
    assert (await post(notify, "*", {"url": URL}, **epa)).status_code == 404
    for path in (f"/v1/agencies/EPA/webhooks/{nasa['webhook_id']}", f"/v1/agencies/NASA/webhooks/{nasa['webhook_id']}"):
        assert (await notify.service.client.delete(path, headers=epa)).status_code == 404
    assert (await notify.get("/v1/agencies/NASA/webhooks")).json()["items"][0]["state"] == "enabled"


async def test_a_scope_that_is_missing_is_refused(notify: Notify) -> None:
    reader = bearer(notify, "notify:read")
    assert (await post(notify, "NASA", {"url": URL}, **reader)).status_code == 403


async def test_a_repeated_request_adds_one_endpoint(notify: Notify) -> None:
    first = await post(notify, "NASA", {"url": URL}, **{"Idempotency-Key": "one"})
    second = await post(notify, "NASA", {"url": URL}, **{"Idempotency-Key": "one"})
    assert first.json()["webhook_id"] == second.json()["webhook_id"]
    assert await notify.service.admin.fetchval("select count(*) from webhook") == 1
    assert (second.json()["secret"], second.json()["url"]) == (None, "https://agency.example/…")
    kept = await notify.service.admin.fetchval("select body from idempotency")
    assert first.json()["secret"].encode() not in kept
    assert URL.encode() not in kept


async def test_an_endpoint_that_would_get_an_event_twice_is_refused(notify: Notify) -> None:
    invoices = ["muster.billing.InvoiceIssued.v1", "muster.billing.InvoicePaid.v1"]
    seats = "muster.entitlements.SeatAssigned.v1"  # sent only to an endpoint that names it
    first = await notify.add_webhook(URL)
    for url in (URL, URL.replace("https://agency", "HTTPS://AGENCY").replace(".example", ".example:443")):
        for types in (None, invoices):
            refused = await post(notify, "NASA", {"url": url, "event_types": types})
            assert refused.status_code == 409, refused.text
            assert first["webhook_id"] in refused.json()["detail"]
            assert "url" in refused.json()["detail"]
    await notify.add_webhook(URL, event_types=[seats])
    assert (await post(notify, "NASA", {"url": URL, "event_types": [*invoices, seats]})).status_code == 409
    await notify.add_webhook(f"{URL}/other", event_types=invoices[:1])
    await notify.add_webhook(f"{URL}/other", event_types=invoices[1:])
    await notify.add_webhook(URL, "EPA")
    assert (await notify.service.client.delete(f"/v1/agencies/NASA/webhooks/{first['webhook_id']}")).status_code == 204
    await notify.add_webhook(URL, event_types=invoices)


async def test_an_endpoint_is_deleted_once(notify: Notify) -> None:
    webhook = await notify.add_webhook(URL)
    path = f"/v1/agencies/NASA/webhooks/{webhook['webhook_id']}"
    assert (await notify.service.client.delete(path)).status_code == 204
    assert (await notify.service.client.delete(path)).status_code == 404
    assert (await notify.get("/v1/agencies/NASA/webhooks")).json()["items"] == []


async def test_endpoints_come_in_pages_oldest_first(notify: Notify) -> None:
    added = []
    for number in range(3):
        notify.move(seconds=1)
        added.append((await notify.add_webhook(f"{URL}/{number}"))["webhook_id"])
    first = (await notify.get("/v1/agencies/NASA/webhooks?limit=2")).json()
    rest = (await notify.get(f"/v1/agencies/NASA/webhooks?limit=2&after={first['next']}")).json()
    assert [webhook["webhook_id"] for webhook in first["items"] + rest["items"]] == added
    assert rest["next"] is None


async def test_deliveries_come_in_pages_latest_first(notify: Notify, mail: MailServer) -> None:
    await notify.service.publish(contact(), *(reinstated() for _ in range(3)))
    await notify.until(3, state="delivered")
    positions = []
    path: str | None = "/v1/agencies/NASA/deliveries?limit=1"
    while path is not None:
        page = (await notify.get(path)).json()
        positions += [delivery["position"] for delivery in page["items"]]
        path = f"/v1/agencies/NASA/deliveries?limit=1&after={page['next']}" if page["next"] else None
    assert len(positions) == 3
    assert positions == sorted(positions, reverse=True)
    assert (await notify.get("/v1/agencies/NASA/deliveries?after=bm9uZQ")).status_code == 422
    nines = base64.urlsafe_b64encode(b"9" * 30).decode()
    assert (await notify.get(f"/v1/agencies/NASA/deliveries?after={nines}")).status_code == 422


async def test_a_tenant_does_not_see_what_the_operators_are_sent(notify: Notify, receiver: Receiver) -> None:
    await notify.add_webhook(receiver.url, "*")
    suspended = AgencySuspended(agency_id="NASA", enrollment_id="enr_1", reason="operator", suspended_at=START)
    await notify.service.publish(contact(), suspended)
    sent = await notify.until(3, state="delivered")
    tenant = bearer(notify, "notify:read", "notify:write", agency="NASA")
    seen = (await notify.get("/v1/agencies/NASA/deliveries", **tenant)).json()["items"]
    assert [(delivery["channel"], delivery["recipient"]) for delivery in seen] == [("email", "administrator")]
    for delivery in (delivery for delivery in sent if delivery not in seen):
        path = f"/v1/agencies/NASA/deliveries/{delivery['delivery_id']}"
        assert (await notify.get(path, **tenant)).status_code == 404
        assert (await notify.service.client.post(f"{path}/retry", headers=tenant)).status_code == 404


async def test_a_failed_delivery_can_be_tried_again(notify: Notify, mail: MailServer) -> None:
    mail.refuse_recipient = "550 not here"
    await notify.service.publish(contact(), enrolled())
    (failed,) = await notify.until(state="failed")
    mail.refuse_recipient = None
    path = f"/v1/agencies/NASA/deliveries/{failed['delivery_id']}/retry"
    response = await notify.service.client.post(path)
    assert (response.status_code, response.json()["state"]) == (200, "pending")
    (delivered,) = await notify.until(state="delivered")
    assert delivered["attempts"] == 2
    assert len(mail.messages) == 1
    again = await notify.service.client.post(path)
    assert again.status_code == 409
    assert "already delivered" in again.json()["detail"]


async def test_a_delivery_that_waits_can_be_retried_at_once(notify: Notify, receiver: Receiver) -> None:
    await notify.add_webhook(receiver.url)
    receiver.answer = lambda _: 500
    await notify.service.publish(reinstated(), reinstated())
    waiting = await notify.waits("answered 500")
    await notify.until(2, channel="webhook", state="pending")
    behind = next(d for d in await notify.deliveries(channel="webhook") if d["attempts"] == 0)
    client = notify.service.client
    answer = await client.post(f"/v1/agencies/NASA/deliveries/{behind['delivery_id']}/retry")
    assert (answer.status_code, "is waiting behind" in answer.json()["detail"]) == (409, True)
    receiver.answer = lambda _: 200
    answer = await client.post(f"/v1/agencies/NASA/deliveries/{waiting['delivery_id']}/retry")
    assert answer.status_code == 200
    await notify.until(2, channel="webhook", state="delivered")
    assert receiver.sequences("NASA") == [1, 1, 2]


@pytest.mark.parametrize("path", ["/v1/agencies/NASA/deliveries/dlv_none", "/v1/agencies/nasa/webhooks"])
async def test_what_does_not_exist_is_a_problem_document(notify: Notify, path: str) -> None:
    response = await notify.get(path)
    assert response.status_code in {404, 422}
    assert response.headers["content-type"] == "application/problem+json"

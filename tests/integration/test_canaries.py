"""Secrets and personal data on every path of the four services, sought everywhere else: they may be nowhere.

Each canary stands for one thing that must stay where it was put. It goes in by every door: requests that are taken,
refused, and broken by a defect, a file, events from other programs, a mail server and a receiver that refuse. What is
searched is all that a process says or keeps about its work: log lines, spans, metrics, problems, the audit trail, why
a stream is parked, replies kept for repeated commands, attempts at deliveries, and the topics without personal data.
"""

import json
import logging
from collections.abc import Iterator
from io import StringIO
from typing import Any
from urllib.parse import urlsplit

import pytest
import structlog

from muster_billing.bootstrap import build as build_billing
from muster_billing.settings import BillingSettings
from muster_contracts import topics
from muster_contracts.enrollment import ContactRecorded
from muster_contracts.entitlements import FeatureUsed
from muster_enrollment.bootstrap import build as build_enrollment
from muster_enrollment.settings import EnrollmentSettings
from muster_entitlements.bootstrap import build as build_entitlements
from muster_entitlements.settings import EntitlementsSettings
from muster_notify.bootstrap import build as build_notify
from muster_notify.settings import NotifySettings
from muster_runtime.observability import telemetry, tracing
from muster_runtime.settings import Settings
from tests.integration.enrollment.program import REGISTER, START, Program, acceptance, authorization, enrollment
from tests.integration.notify.conftest import Notify
from tests.integration.notify.mail import MailServer, mail_server
from tests.integration.notify.receiver import Receiver, receiving
from tests.support.canaries import (
    BREAK_A_CONTACT,
    BREAK_A_PAYMENT,
    BREAK_A_SEAT,
    CANARY,
    CANARY_IN_PATHS,
    PEOPLE,
    SECRET_KEY,
    SUBJECT_KEY,
    Searched,
    worthless_use,
)
from tests.support.collector import collecting
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Searched]:
    """Logs as a process writes them, at their most talkative, and spans as it exports them."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    telemetry.configure(Settings(environment="sandbox", log_level="debug"), "canaries")
    structlog.configure(cache_logger_on_first_use=False)  # later tests have their own
    (handler,) = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    logged = StringIO()
    handler.setStream(logged)
    with collecting() as collector:
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        tracing.start("muster", "test")
        yield Searched(logged, collector)
        tracing.stop()
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


async def test_no_secret_and_no_person_is_told_where_they_do_not_belong(
    run_service: ServiceRunner, searched: Searched
) -> None:
    async with receiving(Receiver(answer=lambda _: 410)) as receiver, mail_server(MailServer()) as mail:
        mail.refuse_recipient = f"550 5.1.1 <{PEOPLE['contact']['email']}>: no such user"
        enrolling = Program(await run_service(build_enrollment, EnrollmentSettings))
        entitlements = await run_service(build_entitlements, EntitlementsSettings, subject_key=SUBJECT_KEY)
        notify = Notify(
            await run_service(
                build_notify,
                NotifySettings,
                smtp_port=mail.port,
                smtp_starttls=False,
                smtp_password=CANARY,
                secret_key=SECRET_KEY,
                webhook_allow_private=True,
            )
        )
        billing = await run_service(build_billing, BillingSettings)
        services = {
            "enrollment": enrolling.service,
            "entitlements": entitlements,
            "billing": billing,
            "notify": notify.service,
        }
        for service in services.values():
            service.clock.move(START)
        await entitlements.admin.execute(BREAK_A_SEAT)
        await notify.service.admin.execute(BREAK_A_CONTACT)
        await billing.admin.execute(BREAK_A_PAYMENT)
        dsns = (dsn for s in services.values() for dsn in (s.access.owner_dsn, s.access.api_dsn, s.access.worker_dsn))
        secrets = {CANARY, CANARY_IN_PATHS, SUBJECT_KEY, SECRET_KEY, *(urlsplit(dsn).password or "" for dsn in dsns)}
        secrets |= {service.client.headers["authorization"].removeprefix("Bearer ") for service in services.values()}

        await _enroll(enrolling)
        secrets.add(await _add_webhook(notify, receiver))
        await _use_seats(entitlements, searched)
        await _pay(billing, searched)
        await _send_worthless_events(notify.service)
        await _report_worthless_use(entitlements)
        await _be_refused(searched, services)

        await eventually(lambda: _is_parked(notify.service))
        await eventually(lambda: "seat_file_failed" in searched.logged.getvalue())
        await eventually(lambda: _is_refused_by_receiver(notify))
        await eventually(lambda: _is_refused_by_mail(notify.service))
        for name, service in services.items():
            await _search(searched, name, service)
    tracing.stop()
    lines = [json.loads(line) for line in searched.logged.getvalue().splitlines()]
    events = {line["event"] for line in lines}
    assert events >= {"request_failed", "stream_parked", "webhook_disabled", "delivery_attempt_failed", "request"}
    assert searched.collector.spans
    assert searched.canaries(secrets - {""}) == []


async def _enroll(enrolling: Program) -> None:
    await enrolling.import_register(REGISTER)
    await enrolling.post("NASA", "enrollments", enrollment(contact=PEOPLE["contact"]))
    await enrolling.post("NASA", "authorizations", authorization())
    accepted = await enrolling.post("NASA", "data-use-acceptances", acceptance(signer=PEOPLE["signer"]))
    assert accepted.status_code == 201, accepted.text


async def _add_webhook(notify: Notify, receiver: Receiver) -> str:
    """Add a webhook whose URL has a secret; answers the secret that signs."""
    added = await notify.add_webhook(f"{receiver.url}/{CANARY_IN_PATHS}?key={CANARY_IN_PATHS}")
    return str(added["secret"])


async def _use_seats(entitlements: RunningService, searched: Searched) -> None:
    """Assign a seat and repeat it, run into a defect, and send a file that runs into it as well."""
    client = entitlements.client

    async def opened() -> bool:
        return (await client.get("/v1/agencies/NASA/pool")).status_code == 200

    await eventually(opened)
    for _ in range(2):
        headers = {"Idempotency-Key": "once"}
        assigned = await client.post("/v1/agencies/NASA/seats", json=PEOPLE["seat"], headers=headers)
        assert assigned.status_code == 201, assigned.text
    await client.get("/v1/agencies/NASA/seats")
    await client.get("/v1/agencies/NASA/checks", params={"subject": PEOPLE["seat"]["email"], "feature": "chat"})
    failed = await client.post("/v1/agencies/NASA/seats", json=PEOPLE["broken"])
    assert failed.status_code == 500
    searched.add("the problem of a defect", failed.text)
    person = PEOPLE["uploaded"]
    body = f"email,name\n{person['email']},{person['name']}\n"
    path = "/v1/agencies/NASA/seat-imports"
    sent = await client.post(path, content=body, headers={"Content-Type": "text/csv"})
    assert sent.status_code == 202, sent.text


async def _pay(billing: RunningService, searched: Searched) -> None:
    """Read the books; pay, run into a defect, and decide on what is no renewal."""
    client, books = billing.client, "/v1/agencies/NASA"

    async def invoices() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await client.get(f"{books}/invoices")).json()["items"]
        return found

    (invoice,) = await eventually(invoices)
    payments = f"{books}/invoices/{invoice['invoice_id']}/payments"
    email = PEOPLE["payer"]["email"]
    headers = {"Idempotency-Key": "paid"}
    failed = await client.post(payments, json={"amount": invoice["amount"], "reference": email}, headers=headers)
    assert failed.status_code == 500, failed.text
    searched.add("the problem of a payment's defect", failed.text)
    for body in ({"amount": email, "reference": email}, {"amount": {"amount_minor": email, "currency": email}}):
        assert (await client.post(payments, json=body)).status_code == 422
    for path in (f"{books}/invoices/{email}/payments", f"{books}/renewals/{email}/decision"):
        assert (await client.post(path, json={email: email})).status_code == 422
    paid = await client.post(payments, json={"amount": invoice["amount"], "reference": "schedule 7"}, headers=headers)
    assert paid.status_code == 201, paid.text
    for path in (
        f"{books}/ledger",
        f"{books}/terms",
        f"{books}/renewals",
        "/v1/forecast?fiscal_year=2026",
        "/v1/reconciliation",
    ):
        read = await client.get(path)
        assert read.status_code == 200, read.text
        searched.add(f"billing {path}", read.text)


async def _send_worthless_events(notify: RunningService) -> None:
    """Contacts that cannot be kept: one that a constraint refuses, and one whose value breaks the contract's rules."""
    person = PEOPLE["broken"]
    await notify.publish(ContactRecorded(agency_id="DOE", subject_ref="con_1", role="administrator", **person))
    stranger = PEOPLE["stranger"]
    value = {"agency_id": "NSF", "subject_ref": [stranger["email"]], stranger["email"]: stranger["name"], "role": 7}
    (envelope,) = await notify.publish(
        ContactRecorded(agency_id="SBA", subject_ref="con_1", role="administrator", name="A", email="a@sba.gov")
    )
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", CANARY.encode()),
        ("ce_source", stranger["email"].encode()),
        ("ce_type", envelope.type.encode()),
        ("ce_partitionkey", b"NSF"),
        ("ce_time", b"yesterday"),  # a reason may quote it: by contract, headers hold no personal data
    ]
    await notify.producer.put_raw(ContactRecorded.topic, key=b"NSF", value=json.dumps(value).encode(), headers=headers)


async def _report_worthless_use(entitlements: RunningService) -> None:
    """Use that cannot be counted, with an address wherever its producer may write one."""
    values = worthless_use(email := PEOPLE["stranger"]["email"], START.isoformat())
    headers = [("content-type", b"application/cloudevents+json"), (email, email.encode())]
    for value in values:
        await entitlements.producer.put_raw(FeatureUsed.topic, key=email.encode(), value=value, headers=headers)
    await eventually(lambda: entitlements.admin.fetchval(f"select count(*) = {len(values) - 1} from usage_parked"))


async def _be_refused(searched: Searched, services: dict[str, RunningService]) -> None:
    """Put canaries where a caller may put anything. Its own problem may quote it; another's, and logs, may not."""
    person = PEOPLE["refused"]
    for name, service in services.items():
        client = service.client
        for body in (json.dumps([person]), f'{{"email": "{person["email"]}"', json.dumps({person["email"]: person})):
            for path in ("seats", "webhooks", "enrollments", "invoices", person["email"]):
                await client.post(
                    f"/v1/agencies/NASA/{path}", content=body, headers={"Content-Type": "application/json"}
                )
        await client.get(f"/v1/agencies/{person['email']}/seats")
        await client.get(f"/v1/agencies/NASA/seats?{person['email']}={person['name']}")
        for token in (CANARY, service.token("a:b", subject="x")[:-5] + "abcde"):
            await client.get("/v1/agencies/NASA/seats", headers={"Authorization": f"Bearer {token}"})
        await client.post("/v1/agencies/NASA/webhooks", json={"url": f"https://{person['email']}:{CANARY}@[/"})
        other = {"Authorization": f"Bearer {service.token(f'{name}:read', f'{name}:write', agency='DOE')}"}
        for path in ("", "/seats", "/enrollment", "/webhooks", "/deliveries", "/pool", "/operations/none", "/ledger"):
            for agency in ("NASA", "DOE"):
                refused = await client.get(f"/v1/agencies/{agency}{path}", headers=other)
                searched.add("what another agency is answered", refused.text)


async def _is_parked(notify: RunningService) -> bool:
    parked = {item["agency_id"] for item in (await notify.client.get("/v1/parked")).json()["items"]}
    return {"DOE", "NSF"} <= parked


async def _is_refused_by_receiver(notify: Notify) -> bool:
    failed = await notify.deliveries(channel="webhook", state="failed")
    return any(delivery["last_error"] == "answered 410" for delivery in failed)


async def _is_refused_by_mail(notify: RunningService) -> bool:
    query = "select count(*) > 0 from delivery_attempt where detail = 'the recipient was refused: 550 5.1.1'"
    return bool(await notify.admin.fetchval(query))


async def _search(searched: Searched, name: str, service: RunningService) -> None:
    """All that a service answers its operators about itself, its tables of its work, and its topics."""
    client, admin = service.client, service.admin
    for path in ("/metrics", "/health/ready", "/sandbox/state", "/v1/parked", "/v1/audit", "/v1/personal-reads"):
        searched.add(f"{name} {path}", (await client.get(path)).text)
    if name == "notify":
        searched.add("the list of webhooks", (await client.get("/v1/agencies/NASA/webhooks")).text)
        for delivery in (await client.get("/v1/agencies/NASA/deliveries")).json()["items"]:
            shown = await client.get(f"/v1/agencies/NASA/deliveries/{delivery['delivery_id']}")
            searched.add("an attempt's details", shown.json()["log"])
    columns = {"idempotency": "convert_from(body, 'utf-8')", "usage_parked": "reason", "usage_deferred": "waits_for"}
    tables = ["audit", "parked_stream", "deadline", "idempotency", "personal_read", "outbox"]
    for table in [*tables, "usage_parked", "usage_deferred"] if name == "entitlements" else tables:
        rows = await admin.fetch(f"select {columns.get(table, 't::text')} as text from {table} as t")
        searched.add(f"{name}'s table {table}", [row["text"] for row in rows])
    personal = {topic for topic, each in topics().items() if each.access == "restricted"}
    parked = await admin.fetch(
        "select key, header_names, header_values, value from parked_event where topic <> all($1)", list(personal)
    )
    searched.add(f"{name}'s table parked_event", [tuple(row) for row in parked])
    for record in await service.reader.records():
        if record.topic.removeprefix(service.topic_prefix) not in personal:
            searched.add(record.topic, [record.key, record.headers, record.value])

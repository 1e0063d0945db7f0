"""Every command of every service leaves an audit row, in the transaction that makes the change."""

import re
import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from muster_billing.bootstrap import build as build_billing
from muster_billing.settings import BillingSettings
from muster_contracts.calendar import one_year_after
from muster_contracts.enrollment import AgencyEnrolled, AgencyReinstated
from muster_enrollment.bootstrap import build as build_enrollment
from muster_enrollment.settings import EnrollmentSettings
from muster_entitlements.bootstrap import build as build_entitlements
from muster_entitlements.handlers.seats import INVITATION_EXPIRED
from muster_entitlements.settings import EntitlementsSettings
from muster_notify.bootstrap import build as build_notify
from muster_notify.settings import NotifySettings
from muster_runtime.http.auth import access_to
from muster_runtime.process.roles import Role
from tests.integration.billing.conftest import START as BILLING_START
from tests.integration.billing.conftest import Billing
from tests.integration.enrollment.program import REGISTER, START, acceptance, authorization, enrollment
from tests.integration.entitlements.conftest import Entitlements
from tests.integration.entitlements.test_catalog import SECOND
from tests.integration.notify.conftest import Notify, contact, enrolled
from tests.support.applications import BUILDERS, whole_application
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner

AGENCY = "/v1/agencies/{agency_id}"
SEAT = f"POST {AGENCY}/seats/{{seat_id}}"
WINDOW = f"POST {AGENCY}/windows/{{window_id}}"
WEBHOOK = f"{AGENCY}/webhooks/{{webhook_id}}"
PARKED = "/v1/parked/{topic}/{agency_id}"

WHY = {"reason": "as the program decided"}

READS = {
    f"POST {AGENCY}/checks",
    "POST /v1/checks",
    "POST /v1/catalog/plan",
    *(f"{WINDOW}/{change}/preview" for change in ("extension", "end", "start")),
}

# Use is not a command: docs/audit.md.
USE = {f"POST {AGENCY}/usage", f"POST {AGENCY}/usage/consume", "POST /v1/usage"}

# The rows of a request, and whether the transaction that stored the reply under the key wrote them.
ROWS = """
select audit.agency_id, audit.command, coalesce(idempotency.xmin = audit.xmin, false) as together
from audit
left join idempotency on idempotency.key = $2
where audit.request_id = $1
"""

# They keep no reply, which would show their transaction.
WITHOUT_KEY = {f"POST {PARKED}/replay", "POST /v1/proposals/{proposal_id}/rejection"}

PARK_A_DEADLINE = """
insert into deadline (kind, agency_id, subject, due_at, parked_at, reason)
values ($1, 'NASA', $2, $3, $3, 'a defect')
"""


def commands_of(name: str) -> set[str]:
    """The routes with which a service changes something."""
    routes = {f"{access.method} {access.path}" for access in access_to(whole_application(name))}
    return {route for route in routes if not route.startswith("GET ")} - READS - USE


# The runtime's, which every service has.
OPERATORS = set.intersection(*(commands_of(name) for name in BUILDERS))


@dataclass
class Audited:
    """Sends commands to a service. Each must succeed, and be recorded in its own transaction."""

    service: RunningService
    sent: set[str] = field(default_factory=set)

    async def send(self, route: str, json: object = None, *, trail: str = "NASA", **request: Any) -> Any:
        """Send a command whose row belongs to the agency `trail`, and return its reply.

        `request` has the values of the path, and what else httpx sends.
        """
        reply, _ = await self._send(route, trail, json=json, **request)
        return reply

    async def send_and_approve(self, route: str, json: object, *, trail: str = "NASA", **request: Any) -> list[str]:
        """Send a command that needs a second person, and let one approve it. Returns the commands then recorded."""
        proposal = (await self.send(route, json, trail=trail, **request))["proposal_id"]
        token = self.service.token("entitlements:read", "entitlements:operate", subject="bob")
        _, recorded = await self._send(
            "POST /v1/proposals/{proposal_id}/approval",
            trail,
            key=proposal,
            headers={"Authorization": f"Bearer {token}"},
            proposal_id=proposal,
        )
        return recorded

    async def _send(
        self, route: str, trail: str, *, key: str | None = None, headers: dict[str, str] | None = None, **request: Any
    ) -> tuple[Any, list[str]]:
        method, template = route.split(" ")
        names = {name: request.pop(name) for name in re.findall(r"{(\w+)}", template) if name in request}
        request_id = secrets.token_hex(8)
        reply = await self.service.client.request(
            method,
            template.format(**{"agency_id": trail, **names}),
            headers={"X-Request-ID": request_id, "Idempotency-Key": request_id, **(headers or {})},
            **request,
        )
        assert reply.is_success, f"{route}: {reply.text}"
        rows = await self.service.admin.fetch(ROWS, request_id, key or request_id)
        assert rows, f"{route} left no audit row"
        assert {(row["agency_id"], row["together"]) for row in rows} == {(trail, route not in WITHOUT_KEY)}, route
        self.sent.add(route)
        return reply.json() if reply.content else None, [row["command"] for row in rows]


async def test_every_command_of_enrollment(run_service: ServiceRunner) -> None:
    service = await run_service(build_enrollment, EnrollmentSettings, roles=frozenset({Role.API}))
    service.clock.move(START)
    audited = Audited(service)
    csv = {"Content-Type": "text/csv"}
    await audited.send("POST /v1/register", trail="*", content=REGISTER, headers=csv)
    await audited.send(f"POST {AGENCY}/enrollments", enrollment())
    first = await audited.send(f"POST {AGENCY}/authorizations", authorization())
    await audited.send(
        f"POST {AGENCY}/authorizations/{{authorization_id}}/revocation",
        WHY,
        authorization_id=first["authorization_id"],
    )
    await audited.send(f"POST {AGENCY}/data-use-acceptances", acceptance())
    shown = await service.client.get("/v1/agencies/NASA/enrollment")
    await audited.send(f"POST {AGENCY}/withdrawal", WHY, headers={"If-Match": shown.headers["etag"]})
    await audited.send(f"POST {AGENCY}/contacts/{{contact_ref}}/erasure", WHY, contact_ref="con_" + "0" * 32)
    assert audited.sent == commands_of("enrollment") - OPERATORS


async def test_every_command_of_billing(run_service: ServiceRunner) -> None:
    service = await run_service(build_billing, BillingSettings)
    service.clock.move(BILLING_START)
    audited, billing = Audited(service), Billing(service)
    await billing.enroll()
    invoice = await billing.only("invoices")
    payment = {"amount": invoice["amount"], "reference": "schedule 7"}
    await audited.send(f"POST {AGENCY}/invoices/{{invoice_id}}/payments", payment, invoice_id=invoice["invoice_id"])
    billing.move(one_year_after(BILLING_START) - timedelta(days=60))
    renewal = await billing.only("renewals")
    decision = {"decision": "accepted"}
    await audited.send(f"POST {AGENCY}/renewals/{{renewal_id}}/decision", decision, renewal_id=renewal["renewal_id"])
    assert audited.sent == commands_of("billing") - OPERATORS


async def test_every_command_of_notify(run_service: ServiceRunner) -> None:
    service = await run_service(build_notify, NotifySettings, smtp_port=1, webhook_allow_private=True)
    service.clock.move(START)
    audited, notify = Audited(service), Notify(service)
    await service.publish(contact(), enrolled())
    delivery = await notify.waits("")  # no mail server answers
    await audited.send(f"POST {AGENCY}/deliveries/{{delivery_id}}/retry", delivery_id=delivery["delivery_id"])
    webhook = (await audited.send(f"POST {AGENCY}/webhooks", {"url": "http://127.0.0.1:1/"}))["webhook_id"]
    await audited.send(f"POST {WEBHOOK}/secret-rotation", {}, webhook_id=webhook)
    await audited.send(f"POST {WEBHOOK}/replays", {"since": START.isoformat()}, webhook_id=webhook)
    await service.admin.execute("update webhook set state = 'disabled'")
    await audited.send(f"POST {WEBHOOK}/enable", webhook_id=webhook)
    await audited.send(f"DELETE {WEBHOOK}", webhook_id=webhook)
    assert audited.sent == commands_of("notify") - OPERATORS


async def test_every_command_of_entitlements_and_of_the_operators(run_service: ServiceRunner) -> None:
    service = await run_service(
        build_entitlements, EntitlementsSettings, roles=frozenset({Role.API, Role.CONSUMER, Role.OPERATIONS})
    )
    service.clock.move(START)
    entitlements = Entitlements(service)
    await entitlements.enroll(cap=10)
    audited = Audited(service)
    await _manage_seats(audited)
    await _manage_features(audited)
    await _manage_windows(audited, entitlements)
    await _manage_the_catalog(audited)
    await _recover(audited)
    assert audited.sent == commands_of("entitlements")


async def _manage_seats(audited: Audited) -> None:
    await audited.send(f"PUT {AGENCY}/seat-policy", {"idle_days": 30})
    await audited.send(f"POST {AGENCY}/pool/resize", {"cap": 20})
    seat = await audited.send(f"POST {AGENCY}/seats", {"email": "ada@nasa.gov", "state": "reserved"})
    for change in ("invitation", "activation", "suspension", "reinstatement"):
        await audited.send(f"{SEAT}/{change}", seat_id=seat["seat_id"])
    await audited.send(f"{SEAT}/transfer", {"email": "bob@nasa.gov"}, seat_id=seat["seat_id"])
    await audited.send(f"{SEAT}/revocation", seat_id=seat["seat_id"])
    await audited.send(f"POST {AGENCY}/people/{{subject_ref}}/erasure", WHY, subject_ref="sub_" + "0" * 32)
    for kind, columns in (
        ("import", "email"),
        ("suspension", "email"),
        ("transfer", "from,to"),
        ("revocation", "email"),
    ):
        row = ",".join(f"{column}@nasa.gov" for column in columns.split(","))
        content, headers = f"{columns}\n{row}\n", {"Content-Type": "text/csv"}
        await audited.send(f"POST {AGENCY}/seat-{kind}s", content=content, headers=headers)


async def _manage_features(audited: Audited) -> None:
    feature = {"feature": "deep-research", **WHY}
    grant = await audited.send(f"POST {AGENCY}/grants", feature)
    await audited.send(f"POST {AGENCY}/grants/{{grant_id}}/revocation", WHY, grant_id=grant["grant_id"])
    await audited.send(f"POST {AGENCY}/quota-grants", feature | {"amount": 5})
    await audited.send("POST /v1/usage/parked/discard", {"ids": [1], **WHY}, trail="*")


async def _manage_windows(audited: Audited, entitlements: Entitlements) -> None:
    windows = {each["feature"]: each["window_id"] for each in (await entitlements.get("windows")).json()["items"]}
    research, voice = windows["deep-research"], windows["advanced-voice-mode"]
    extended = await audited.send_and_approve(
        f"{WINDOW}/extension", {"ends_on": "2025-11-03", **WHY}, window_id=research
    )
    assert set(extended) == {"ApproveProposal", "ExtendWindow"}
    corrected = await audited.send_and_approve(f"{WINDOW}/start", {"starts_on": "2025-08-07", **WHY}, window_id=voice)
    assert set(corrected) == {"ApproveProposal", "CorrectWindowStart"}
    await audited.send(f"{WINDOW}/end", {"ends_on": "2025-09-15", **WHY}, window_id=voice)


async def _manage_the_catalog(audited: Audited) -> None:
    publish, catalog = "POST /v1/catalog/draft/publication", {"rule": "now", "features": SECOND}
    draft = await audited.send("PUT /v1/catalog/draft", catalog, trail="*")
    current = {"If-Match": f'"{draft["revision"]}"'}
    rejected = await audited.send(publish, {}, trail="*", headers=current)
    await audited.send(
        "POST /v1/proposals/{proposal_id}/rejection", WHY, trail="*", proposal_id=rejected["proposal_id"]
    )
    published = await audited.send_and_approve(publish, {}, trail="*", headers=current)
    assert set(published) == {"ApproveProposal", "PublishCatalog"}


async def _recover(audited: Audited) -> None:
    """What an operator does after a defect and after a restore."""
    service, topic = audited.service, AgencyEnrolled.topic
    event = AgencyReinstated(agency_id="DOE", enrollment_id="enr_2", reinstated_at=START)
    (first,) = await service.publish(event)
    for sequence in (7, 9):
        await service.producer.put(first._replace(sequence=sequence, id=f"{first.id}-{sequence}"), event)
    await eventually(lambda: service.admin.fetchval("select count(*) = 2 from parked_event"))
    stream = {"trail": "DOE", "topic": topic}
    await audited.send("POST /v1/streams/{topic}/{agency_id}/gap", {"waiting": 7, **WHY}, **stream)
    await audited.send(f"POST {PARKED}/replay", **stream)
    shown = (await service.client.get(f"/v1/parked/{topic}/DOE")).json()["first_records"]
    records = [{name: record[name] for name in ("partition", "offset")} for record in shown]
    await audited.send(f"POST {PARKED}/discard", {"records": records, **WHY}, **stream)

    for change, more in (("retry", {}), ("discard", WHY)):
        await service.admin.execute(PARK_A_DEADLINE, INVITATION_EXPIRED, change, START)
        named = {"kind": INVITATION_EXPIRED, "agency_id": "NASA", "subject": change, "due_at": START.isoformat()}
        await audited.send(f"POST /v1/parked-deadlines/{change}", named | more)

    record = {"offset": 0, **WHY}
    await audited.send("POST /v1/partitions/{topic}/{partition}/pass", record, trail="*", topic=topic, partition=0)
    consumer = service.process.consumer
    assert consumer is not None
    await consumer.stop()  # otherwise the group refuses to be rewound
    await audited.send("POST /v1/epoch", WHY, trail="*")
    await audited.send("POST /v1/deadlines/release", WHY, trail="*")
    await audited.send("POST /v1/rewind", WHY, trail="*")

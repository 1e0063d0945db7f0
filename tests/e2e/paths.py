"""What `muster trace` shows about seats that are assigned on a stack, and about their webhooks."""

import json
from collections.abc import Iterator
from typing import Any

import httpx

from muster_contracts.entitlements import SeatAssigned
from tests.e2e.troubles import PATIENCE, parked
from tests.integration.notify.receiver import Receiver
from tests.support.eventually import eventually
from tests.support.operator import Operator, enroll

AGENCY = "GSA"

# Keeps notify from recording the agency's deliveries.
BREAK = f"alter table delivery add constraint broken check (agency_id <> '{AGENCY}') not valid"


async def join(operator: Operator, receiver: Receiver) -> None:
    """Let the agency join, with a webhook for its seats."""
    await enroll(operator, AGENCY)
    await post(operator, "notify", "webhooks", {"url": receiver.url, "event_types": [SeatAssigned.event_type]})
    pool = f"select count(*) from pool where agency_id = '{AGENCY}'"
    await eventually(lambda: operator.sql("entitlements", pool), timeout=PATIENCE)


async def post(operator: Operator, service: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send a command for the agency."""
    token = operator.stack.token(f"{service}:write")
    async with httpx.AsyncClient(base_url=operator.stack.service_url(service), trust_env=False) as client:
        headers = {
            "authorization": f"Bearer {token}",
            "x-request-id": f"request-{body.get('email', '').partition('@')[0]}",
        }
        answer = await client.post(f"/v1/agencies/{AGENCY}/{path}", json=body, headers=headers)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


async def assign(operator: Operator, email: str) -> str:
    """Assign a seat; return its ID."""
    return str((await post(operator, "entitlements", "seats", {"email": email}))["seat_id"])


def traced(operator: Operator, id_: str) -> dict[str, Any]:
    """The only path with this ID."""
    found = json.loads(operator.run(f"muster trace {id_} --json"))
    assert found["not_looked_at"] == []
    (path,) = found["paths"]
    return dict(path)


def steps(led_to: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each step of a path."""
    for step in led_to:
        yield step
        yield from steps(step["led_to"])


async def show_a_delivery(operator: Operator, receiver: Receiver) -> None:
    """The path from the command to the delivered webhook is found by any of its IDs."""
    seat = await assign(operator, "ada@gsa.gov")
    delivered = f"select id from delivery where agency_id = '{AGENCY}' and state = 'delivered' and channel = 'webhook'"
    delivery = await eventually(lambda: operator.sql("notify", delivered), timeout=PATIENCE)
    path = traced(operator, seat)
    (command,) = path["steps"]
    (event,) = command["led_to"]
    (told,) = [step for step in event["led_to"] if step["service"] == "notify"]
    (sent,) = told["led_to"]
    (attempt,) = sent["led_to"]
    assert (command["command"], command["subject"], command["request_id"]) == (
        "AssignSeat",
        seat,
        "request-ada",
    )
    assert (event["event_id"], event["event_type"]) == (receiver.requests[0].event["id"], SeatAssigned.event_type)
    assert (told["state"], sent["delivery_id"], attempt["outcome"]) == ("applied", delivery, "delivered")
    times = [step["offset_ms"] for step in (command, event, sent, attempt)]
    assert times[0] == 0
    assert times == sorted(times)
    for id_ in (event["event_id"], delivery, "request-ada"):
        assert traced(operator, id_) == path, id_
    invoice = await operator.sql("billing", "select id from invoice where agency_id = $1", AGENCY)
    billed = traced(operator, invoice)
    assert billed["steps"][-1]["command"] == "AcceptDataUseTerms"
    assert {"AgencyEnrolled", "InvoiceIssued"} <= {
        step["event_type"].split(".")[2] for step in steps(billed["steps"]) if step["kind"] == "event"
    }


async def show_where_it_waits(operator: Operator, receiver: Receiver) -> None:
    """An event of a parked stream waits there until it is replayed."""
    await operator.sql("notify", BREAK)
    seat = await assign(operator, "grace@gsa.gov")
    await eventually(lambda: parked(operator, "notify", AGENCY), timeout=PATIENCE)
    shown = operator.run(f"muster trace {seat}")
    assert "notify: parked: CheckViolationError" in shown
    assert "grace@gsa.gov" not in shown
    await operator.sql("notify", "alter table delivery drop constraint broken")
    operator.run(f"muster parked replay {SeatAssigned.topic} {AGENCY} --service notify")
    await eventually(lambda: len(receiver.requests) == 2, timeout=PATIENCE)
    assert "webhook to whk_" in operator.run(f"muster trace {seat}")
    assert "status 3" in operator.run("muster trace seat_unknown || echo status $?")

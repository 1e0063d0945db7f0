"""Payments, decisions, and reports over HTTP: their effects and refusals."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from muster_contracts.billing import InvoicePaid, RenewalDecided, RenewalOffered
from muster_contracts.calendar import one_year_after
from muster_local.scopes import SCOPES
from tests.integration.billing.conftest import START, Billing

DOLLAR = {"amount_minor": 100, "currency": "USD"}
NO_INVOICE = "inv_" + "0" * 32

Offered = Callable[[], Awaitable[dict[str, Any]]]


def refusal(response: httpx.Response, status: int) -> dict[str, Any]:
    """The first error of a problem, or the problem if it lists none."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = dict(response.json())
    return dict(problem["errors"][0]) if "errors" in problem else problem


async def paid_count(billing: Billing) -> int:
    return int(await billing.service.admin.fetchval("select count(*) from payment"))


@pytest.fixture
async def invoice_id(billing: Billing) -> str:
    await billing.enroll()
    return str((await billing.only("invoices"))["invoice_id"])


async def test_a_payment_settles_the_invoice_and_is_audited(billing: Billing, invoice_id: str) -> None:
    response = await billing.pay(invoice_id, DOLLAR)
    assert response.status_code == 201
    assert (await billing.only("invoices"))["state"] == "paid"
    (paid,) = await billing.published(InvoicePaid)
    assert paid.payment_id == response.json()["payment_id"]
    ledger = (await billing.get("/v1/agencies/NASA/ledger"))["items"]
    assert [(t["kind"], [(e["account"], e["amount"]["amount_minor"]) for e in t["entries"]]) for t in ledger] == [
        ("invoice_issued", [("accounts_receivable", 100), ("revenue", -100)]),
        ("payment_received", [("cash", 100), ("accounts_receivable", -100)]),
    ]
    audit = await billing.service.admin.fetchrow("select command, subject, actor from audit")
    assert dict(audit or {}) == {"command": "RecordPayment", "subject": invoice_id, "actor": "operator"}


@pytest.mark.parametrize(
    ("amount", "field"),
    [
        ({"amount_minor": 100.1, "currency": "USD"}, "amount_minor"),
        ({"amount_minor": "1.001", "currency": "USD"}, "amount_minor"),
        ({"amount_minor": 1.001, "currency": "USD"}, "amount_minor"),
        ({"amount_minor": "100", "currency": "USD"}, "amount_minor"),
        ({"amount_minor": -100, "currency": "USD"}, "amount_minor"),
        ({"amount_minor": 0, "currency": "USD"}, "amount_minor"),
        ({"amount_minor": True, "currency": "USD"}, "amount_minor"),
        ({"amount_minor": None, "currency": "USD"}, "amount_minor"),
        ({"amount_minor": 10**30, "currency": "USD"}, "amount_minor"),
        ({"amount_minor": 99, "currency": "USD"}, "amount_minor"),
        ({"amount_minor": 101, "currency": "USD"}, "amount_minor"),
        ({"amount_minor": 100, "currency": "EUR"}, "currency"),
        ({"amount_minor": 100, "currency": "usd"}, "currency"),
        ({"amount_minor": 100}, "currency"),
        ({"amount_minor": 100, "currency": "USD", "tip": 1}, "tip"),
        ("1.00", "amount"),
    ],
)
async def test_any_other_amount_is_refused_and_nothing_is_booked(
    billing: Billing, invoice_id: str, amount: object, field: str
) -> None:
    error = refusal(await billing.pay(invoice_id, amount), 422)
    assert field in error["field"]
    assert error["rule"]
    assert await paid_count(billing) == 0
    await billing.assert_books_balance()


@pytest.mark.parametrize(
    "change", [{"reference": ""}, {"reference": "a\u0000b"}, {"reference": "x" * 201}, {"reference": 7}, {"memo": "x"}]
)
async def test_an_invalid_reference_or_an_unknown_field_is_refused(
    billing: Billing, invoice_id: str, change: dict[str, object]
) -> None:
    response = await billing.service.client.post(
        f"/v1/agencies/NASA/invoices/{invoice_id}/payments", json={"amount": DOLLAR, "reference": "7", **change}
    )
    assert next(iter(change)) in refusal(response, 422)["field"]


async def test_incomplete_json_is_refused(billing: Billing, invoice_id: str) -> None:
    response = await billing.service.client.post(
        f"/v1/agencies/NASA/invoices/{invoice_id}/payments",
        content=b'{"amount": {',
        headers={"content-type": "application/json"},
    )
    refusal(response, 400)


async def test_an_invoice_is_paid_once(billing: Billing, invoice_id: str) -> None:
    assert (await billing.pay(invoice_id, DOLLAR)).status_code == 201
    assert "paid" in refusal(await billing.pay(invoice_id, DOLLAR), 409)["detail"]
    assert await paid_count(billing) == 1


async def test_a_repeated_request_with_its_key_gets_the_first_answer(billing: Billing, invoice_id: str) -> None:
    key = {"Idempotency-Key": "payment-7"}
    first = await billing.pay(invoice_id, DOLLAR, headers=key)
    again = await billing.pay(invoice_id, DOLLAR, headers=key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    refusal(await billing.pay(invoice_id, {"amount_minor": 1, "currency": "USD"}, headers=key), 422)
    assert await paid_count(billing) == 1


async def test_a_draft_cannot_be_paid(billing: Billing) -> None:
    await billing.enroll(starts_at=START + timedelta(days=1))
    draft = await billing.only("invoices")
    assert "draft" in refusal(await billing.pay(draft["invoice_id"], DOLLAR), 409)["detail"]


async def test_an_invoice_of_another_agency_is_not_found(billing: Billing, invoice_id: str) -> None:
    refusal(await billing.pay(NO_INVOICE, DOLLAR), 404)
    refusal(await billing.pay(invoice_id, DOLLAR, agency_id="NIH"), 404)
    other = {"Authorization": f"Bearer {billing.service.token('billing:read', 'billing:write', agency='NIH')}"}
    refusal(await billing.service.client.get("/v1/agencies/NASA/invoices", headers=other), 404)


async def test_an_agency_cannot_record_its_own_payment(billing: Billing, invoice_id: str) -> None:
    for token in (billing.service.token(*SCOPES, agency="NASA"), billing.service.token("billing:write")):
        refusal(await billing.pay(invoice_id, DOLLAR, headers={"Authorization": f"Bearer {token}"}), 403)
    assert await paid_count(billing) == 0
    officer = {"Authorization": f"Bearer {billing.service.token('billing:receive')}"}
    assert (await billing.pay(invoice_id, DOLLAR, headers=officer)).status_code == 201


async def test_a_token_without_the_scope_is_refused(billing: Billing, invoice_id: str) -> None:
    reader = {"Authorization": f"Bearer {billing.service.token('billing:read', agency='NASA')}"}
    refusal(await billing.pay(invoice_id, DOLLAR, headers=reader), 403)
    refusal(await billing.service.client.get("/v1/reconciliation", headers=reader), 403)
    assert (await billing.service.client.get("/v1/agencies/NASA/terms", headers=reader)).status_code == 200


@pytest.mark.parametrize("agency_id", ["nasa", "N", "NASA,NIH", "*"])
async def test_an_invalid_agency_id_is_refused(billing: Billing, agency_id: str) -> None:
    response = await billing.service.client.get(f"/v1/agencies/{agency_id}/invoices")
    assert "agency_id" in refusal(response, 422)["field"]


async def test_a_decision_is_final(billing: Billing, offered: Offered) -> None:
    renewal_id = (await offered())["renewal_id"]
    refusal(await billing.decide(renewal_id, "maybe"), 422)
    refusal(await billing.decide("ren_" + "0" * 32, "accepted"), 404)
    first = await billing.decide(renewal_id, "declined")
    assert (first.status_code, first.json()["state"]) == (200, "declined")
    assert (await billing.decide(renewal_id, "declined")).json() == first.json()
    assert "declined" in refusal(await billing.decide(renewal_id, "accepted"), 409)["detail"]
    await billing.settle()
    await billing.published(RenewalDecided, 1)


async def test_a_decision_at_the_end_of_the_term_is_too_late(billing: Billing, offered: Offered) -> None:
    renewal_id = (await offered())["renewal_id"]
    billing.move(one_year_after(START))
    refusal(await billing.decide(renewal_id, "accepted"), 409)
    await billing.settle()
    await billing.published(RenewalDecided, 0)


async def test_a_list_comes_in_pages(billing: Billing, invoice_id: str) -> None:
    await billing.pay(invoice_id, DOLLAR)
    first = await billing.get("/v1/agencies/NASA/ledger?limit=1")
    second = await billing.get(f"/v1/agencies/NASA/ledger?limit=1&after={first['next']}")
    kinds = [page["items"][0]["kind"] for page in (first, second)]
    assert (kinds, second["next"]) == (["invoice_issued", "payment_received"], None)
    elsewhere = await billing.service.client.get("/v1/agencies/NASA/ledger?after=aW52XzE")
    refusal(elsewhere, 422)


@pytest.mark.parametrize(
    ("what", "instant"), [("terms", "starts_at"), ("invoices", "issued_at"), ("renewals", "offered_at")]
)
async def test_a_list_of_what_each_term_has_comes_in_pages_oldest_first(
    billing: Billing, offered: Offered, what: str, instant: str
) -> None:
    await billing.decide((await offered())["renewal_id"], "accepted")
    billing.move(one_year_after(one_year_after(START)) - timedelta(days=60))
    await billing.published(RenewalOffered, 2)
    first = await billing.get(f"/v1/agencies/NASA/{what}?limit=1")
    second = await billing.get(f"/v1/agencies/NASA/{what}?limit=1&after={first['next']}")
    assert [len(first["items"]), len(second["items"]), second["next"]] == [1, 1, None]
    assert first["items"][0][instant] < second["items"][0][instant]


async def test_the_forecast_sums_accepted_and_open_renewals_of_a_fiscal_year(billing: Billing) -> None:
    for number, agency_id in enumerate(("NASA", "NIH", "DOE")):
        await billing.enroll(agency_id, enrollment_id=f"enr_{number}")
        await billing.only("terms", agency_id)
    billing.move(one_year_after(START) - timedelta(days=60))
    renewals = {agency_id: await billing.only("renewals", agency_id) for agency_id in ("NASA", "NIH", "DOE")}
    await billing.decide(renewals["NASA"]["renewal_id"], "accepted")
    await billing.decide(renewals["DOE"]["renewal_id"], "declined", agency_id="DOE")
    assert await billing.get("/v1/forecast?fiscal_year=2026") == {
        "fiscal_year": 2026,
        "lines": [
            {"state": "accepted", "renewals": 1, "amount": DOLLAR},
            {"state": "offered", "renewals": 1, "amount": DOLLAR},
        ],
    }
    assert (await billing.get("/v1/forecast?fiscal_year=2027"))["lines"] == []
    for agency, states in ((["NASA", "NIH"], ["accepted", "offered"]), (["EPA", "NIH"], ["offered"]), (["EPA"], [])):
        token = billing.service.token("billing:operate", agency=agency)
        own = await billing.service.client.get(
            "/v1/forecast?fiscal_year=2026", headers={"Authorization": f"Bearer {token}"}
        )
        assert [line["state"] for line in own.json()["lines"]] == states
    refusal(await billing.service.client.get("/v1/forecast?fiscal_year=26"), 422)


@pytest.mark.parametrize("kind", ["start_term", "offer_renewal", "tell_overdue", "end_term"])
async def test_a_parked_deadline_that_leads_to_the_next_step_cannot_be_discarded(billing: Billing, kind: str) -> None:
    named = {"kind": kind, "agency_id": "NASA", "subject": "parked"}
    await billing.service.admin.execute(
        """
        insert into deadline (kind, agency_id, subject, due_at, parked_at, reason)
        values ($1, $2, $3, $4, $4, 'a defect')
        """,
        *named.values(),
        START,
    )
    refused = await billing.service.client.post(
        "/v1/parked-deadlines/discard", json=named | {"due_at": START.isoformat(), "reason": "it is in the way"}
    )
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:muster:problem:deadline-required")


async def test_reconciliation_lists_what_was_tampered_with(billing: Billing, invoice_id: str) -> None:
    await billing.assert_books_balance()
    admin = billing.service.admin
    await admin.execute("update ledger_entry set amount_minor = 90 where account = 'accounts_receivable'")
    await admin.execute(
        """
        insert into term (
            id, agency_id, enrollment_id, number, state, starts_at, ends_at, first_day, price_minor, currency
        )
        values ('term_x', 'NIH', 'enr_2', 1, 'running', $1, $2, current_date, 100, 'USD')
        """,
        START,
        one_year_after(START),
    )
    await admin.execute("update invoice set state = 'void', voided_at = issued_at where id = $1", invoice_id)
    report = await billing.get("/v1/reconciliation")
    assert [term["term_id"] for term in report["terms_without_invoice"]] == ["term_x"]
    assert [(i["invoice_id"], i["kind"], i["booked"]) for i in report["misbooked_invoices"]] == [
        (invoice_id, "invoice_voided", False)
    ]
    assert [(a["account"], a["ledger_minor"], a["expected_minor"]) for a in report["unbalanced_accounts"]] == [
        ("accounts_receivable", 90, 0),
        ("revenue", -100, 0),
    ]

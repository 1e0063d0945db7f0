"""A term from start to end, with its invoice and its renewal, on real Kafka and Postgres."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from muster_contracts.billing import (
    InvoiceIssued,
    InvoicePaid,
    InvoiceVoided,
    PaymentOverdue,
    RenewalDecided,
    RenewalOffered,
    TermEnded,
    TermStarted,
)
from muster_contracts.calendar import one_year_after
from muster_contracts.enrollment import AgencySuspended
from tests.integration.billing.conftest import START, Billing, enrolled
from tests.support.eventually import eventually

DOLLAR = {"amount_minor": 100, "currency": "USD"}
END = one_year_after(START)
MOMENT = timedelta(microseconds=1)

Offered = Callable[[], Awaitable[dict[str, Any]]]


async def test_an_enrolled_agency_has_a_running_term_and_one_invoice_due_in_30_days(billing: Billing) -> None:
    await billing.enroll()
    (started,) = await billing.published(TermStarted)
    (issued,) = await billing.published(InvoiceIssued)
    assert (started.number, started.starts_at, started.ends_at) == (1, START, END)
    assert started.price.model_dump() == issued.amount.model_dump() == DOLLAR
    assert (issued.invoice_number, issued.due_at - issued.issued_at) == ("NASA-2025-01", timedelta(days=30))
    invoice = await billing.only("invoices")
    assert (invoice["state"], invoice["fiscal_year"]) == ("issued", 2025)
    assert invoice["period_of_performance"] == {"first_day": "2025-08-06", "last_day": "2026-08-05"}
    await billing.assert_books_balance()


async def test_an_enrollment_that_is_published_twice_has_one_term_and_one_invoice(billing: Billing) -> None:
    event = enrolled("NASA", START, "enr_1")
    # Two events, not one repeated: the runtime applies both, and the constraint holds.
    await billing.service.publish(event, event)
    await billing.published(TermStarted)
    await billing.settle()
    await billing.published(TermStarted)
    await billing.published(InvoiceIssued)
    assert (await billing.only("invoices"))["invoice_number"] == "NASA-2025-01"


async def test_the_last_evening_of_a_fiscal_year_in_washington_belongs_to_that_year(
    billing: Billing,
) -> None:
    starts_at = datetime(2025, 10, 1, 3, tzinfo=UTC)
    billing.move(starts_at)
    await billing.enroll(starts_at=starts_at)
    await billing.published(InvoiceIssued)
    invoice = await billing.only("invoices")
    assert (invoice["fiscal_year"], invoice["invoice_number"]) == (2025, "NASA-2025-01")
    assert invoice["period_of_performance"] == {"first_day": "2025-09-30", "last_day": "2026-09-29"}
    billing.move(one_year_after(starts_at) - timedelta(days=60))
    await billing.only("renewals")
    lines = [(await billing.get(f"/v1/forecast?fiscal_year={year}"))["lines"] for year in (2026, 2027)]
    assert lines == [[{"state": "offered", "renewals": 1, "amount": DOLLAR}], []]


async def test_after_an_outage_overdue_notices_are_not_sent_all_at_once(billing: Billing) -> None:
    await billing.enroll()
    (issued,) = await billing.published(InvoiceIssued)
    billing.move(issued.due_at + timedelta(days=100))  # an outage of 100 days
    await billing.settle()
    (first,) = await billing.published(PaymentOverdue)
    assert (first.level, first.days_overdue) == (1, 100)
    for level, days in ((2, 130), (3, 160)):
        billing.move(issued.due_at + timedelta(days=days) - MOMENT)
        await billing.settle()
        await billing.published(PaymentOverdue, level - 1)
        billing.move(issued.due_at + timedelta(days=days))
        overdue = (await billing.published(PaymentOverdue, level))[-1]
        assert (overdue.level, overdue.days_overdue) == (level, days)


async def test_a_withdrawal_during_an_outage_cancels_the_notices_that_fell_due_in_it(billing: Billing) -> None:
    await billing.enroll()
    (issued,) = await billing.published(InvoiceIssued)
    await billing.withdraw(START + timedelta(days=10))
    billing.move(issued.due_at + timedelta(days=5))  # an outage until then
    await billing.settle()
    await billing.published(PaymentOverdue, 0)


async def test_a_scheduled_term_starts_and_is_invoiced_at_its_start(billing: Billing) -> None:
    starts_at = START + timedelta(days=56)
    await billing.enroll(starts_at=starts_at)
    assert (await billing.only("terms"))["state"] == "scheduled"
    draft = await billing.only("invoices")
    assert (draft["state"], draft["invoice_number"], draft["due_at"]) == ("draft", None, None)

    billing.move(starts_at - MOMENT)
    await billing.settle()
    await billing.published(TermStarted, 0)
    billing.move(starts_at)
    await billing.published(TermStarted)
    assert await billing.times(TermStarted) == [starts_at]
    # The term begins on October 1, and that fiscal year pays.
    assert (await billing.only("invoices"))["invoice_number"] == "NASA-2026-01"


async def test_a_term_that_begins_late_leaves_the_whole_time_to_pay(billing: Billing) -> None:
    billing.move(START + timedelta(days=20))
    await billing.enroll()
    (started,) = await billing.published(TermStarted)
    (issued,) = await billing.published(InvoiceIssued)
    assert (started.starts_at, issued.issued_at) == (START, START + timedelta(days=20))
    assert issued.due_at == START + timedelta(days=50)


async def test_an_unpaid_invoice_has_three_overdue_notices_and_the_term_continues(billing: Billing) -> None:
    await billing.enroll()
    due_at = START + timedelta(days=30)
    await billing.published(InvoiceIssued)
    for level, days in enumerate((0, 30, 60), start=1):
        billing.move(due_at + timedelta(days=days) - MOMENT)
        await billing.settle()
        await billing.published(PaymentOverdue, level - 1)
        billing.move(due_at + timedelta(days=days))
        overdue = (await billing.published(PaymentOverdue, level))[-1]
        assert (overdue.level, overdue.days_overdue, overdue.due_at) == (level, days, due_at)
    billing.move(END - MOMENT)
    await billing.settle()
    assert await billing.times(PaymentOverdue) == [due_at + timedelta(days=days) for days in (0, 30, 60)]
    await billing.published(TermEnded, 0)


async def test_a_payment_stops_the_overdue_notices(billing: Billing) -> None:
    await billing.enroll()
    invoice = await billing.only("invoices")
    billing.move(START + timedelta(days=30))
    await billing.published(PaymentOverdue)
    assert (await billing.pay(invoice["invoice_id"], DOLLAR)).status_code == 201
    kinds = await billing.service.admin.fetch("select kind from deadline order by kind")
    assert [row["kind"] for row in kinds] == ["end_term", "offer_renewal"]
    billing.move(START + timedelta(days=200))
    await billing.published(InvoicePaid)
    await billing.settle()
    await billing.published(PaymentOverdue, 1)
    await billing.assert_books_balance()


async def test_an_accepted_renewal_starts_the_next_term_at_the_end_of_the_first(
    billing: Billing, offered: Offered
) -> None:
    renewal = await offered()
    (offer,) = await billing.published(RenewalOffered)
    assert (offer.decide_by, offer.next_starts_at, offer.next_ends_at) == (END, END, one_year_after(END))
    assert (await billing.decide(renewal["renewal_id"], "accepted")).json()["state"] == "accepted"
    (decided,) = await billing.published(RenewalDecided)
    assert (decided.decision, decided.price.amount_minor) == ("accepted", 100)

    billing.move(END)
    first, second = await billing.published(TermStarted, 2)
    (ended,) = await billing.published(TermEnded)
    assert (ended.term_id, ended.reason, ended.renewed) == (first.term_id, "completed", True)
    assert (second.number, second.starts_at, second.enrollment_id) == (2, END, "enr_1")
    assert await billing.times(TermEnded) == [END]
    invoices = await billing.published(InvoiceIssued, 2)
    assert [invoice.invoice_number for invoice in invoices] == ["NASA-2025-01", "NASA-2026-01"]
    await billing.assert_books_balance()


async def test_a_declined_renewal_lets_the_term_end(billing: Billing, offered: Offered) -> None:
    renewal = await offered()
    await billing.decide(renewal["renewal_id"], "declined")
    billing.move(END)
    (ended,) = await billing.published(TermEnded)
    assert (ended.reason, ended.renewed, ended.ended_at) == ("completed", False, END)
    await billing.published(TermStarted, 1)


async def test_an_offer_without_an_answer_lapses_and_nothing_is_decided(billing: Billing, offered: Offered) -> None:
    await offered()
    billing.move(END)
    (ended,) = await billing.published(TermEnded)
    assert not ended.renewed
    await billing.settle()
    await billing.published(RenewalDecided, 0)
    await billing.published(TermStarted, 1)
    assert (await billing.only("renewals"))["state"] == "lapsed"


async def test_a_withdrawal_ends_the_term_voids_the_invoice_and_closes_the_offer(
    billing: Billing, offered: Offered
) -> None:
    renewal = await offered()
    await billing.decide(renewal["renewal_id"], "accepted")
    withdrawn_at = END - timedelta(days=10)
    billing.move(withdrawn_at)
    await billing.withdraw(withdrawn_at)
    (ended,) = await billing.published(TermEnded)
    (voided,) = await billing.published(InvoiceVoided)
    assert (ended.reason, ended.renewed, ended.ended_at) == ("withdrawn", False, withdrawn_at)
    assert (voided.reason, voided.voided_at) == ("agency_withdrawn", withdrawn_at)
    assert (await billing.only("renewals"))["state"] == "withdrawn"
    await billing.assert_books_balance()

    billing.move(END + timedelta(days=400))
    await billing.settle()
    await billing.published(TermStarted, 1)
    await billing.published(TermEnded, 1)
    assert await billing.service.admin.fetchval("select count(*) from deadline") == 0


async def test_a_paid_invoice_stays_paid_when_the_agency_withdraws(billing: Billing) -> None:
    await billing.enroll()
    invoice = await billing.only("invoices")
    await billing.pay(invoice["invoice_id"], DOLLAR)
    await billing.withdraw(START)
    await billing.published(TermEnded)
    await billing.settle()
    await billing.published(InvoiceVoided, 0)
    assert (await billing.only("invoices"))["state"] == "paid"
    await billing.assert_books_balance()


async def test_an_agency_that_withdraws_before_its_term_starts_is_never_charged(billing: Billing) -> None:
    await billing.enroll(starts_at=START + timedelta(days=10))
    await billing.only("terms")
    await billing.withdraw(START)
    await eventually(lambda: billing.service.admin.fetchval("select state = 'cancelled' from term"))
    billing.move(START + timedelta(days=500))
    await billing.settle()
    for cls in (TermStarted, InvoiceIssued, InvoiceVoided, TermEnded):
        await billing.published(cls, 0)
    assert (await billing.only("invoices"))["state"] == "void"
    await billing.assert_books_balance()


async def test_a_withdrawal_after_the_end_changes_nothing(billing: Billing, offered: Offered) -> None:
    await offered()
    billing.move(END)
    await billing.published(TermEnded)
    await billing.withdraw(END)
    await billing.settle()
    await billing.published(TermEnded, 1)
    await billing.published(InvoiceVoided, 0)


async def test_an_agency_that_enrolls_again_has_a_new_term_1_and_the_next_invoice_number(billing: Billing) -> None:
    await billing.enroll()
    await billing.withdraw(START)
    await billing.enroll(enrollment_id="enr_2")
    terms = await billing.published(TermStarted, 2)
    assert [(term.enrollment_id, term.number) for term in terms] == [("enr_1", 1), ("enr_2", 1)]
    invoices = await billing.published(InvoiceIssued, 2)
    assert [invoice.invoice_number for invoice in invoices] == ["NASA-2025-01", "NASA-2025-02"]


async def test_a_suspension_changes_nothing(billing: Billing) -> None:
    await billing.enroll()
    await billing.service.publish(
        AgencySuspended(agency_id="NASA", enrollment_id="enr_1", reason="atu_lapsed", suspended_at=START)
    )
    await billing.published(TermStarted)
    await billing.settle()
    assert (await billing.only("terms"))["state"] == "running"
    billing.move(START + timedelta(days=30))
    await billing.published(PaymentOverdue)

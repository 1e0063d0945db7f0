"""Offers of the next term that an outage made late: the time to decide counts from when the offer is made."""

from datetime import UTC, datetime, timedelta
from typing import Any

from muster_contracts.billing import InvoiceIssued, RenewalDecided, RenewalOffered, TermEnded, TermStarted
from muster_contracts.calendar import one_year_after
from tests.integration.billing.conftest import START, Billing

END = one_year_after(START)
BACK = END + timedelta(days=40)
DECIDE_BY = BACK + timedelta(days=30)
MOMENT = timedelta(microseconds=1)


async def offered_late(billing: Billing, back: datetime = BACK) -> dict[str, Any]:
    """A term whose renewal is not offered before `back`. Returns the offer, once everything due is handled."""
    await billing.enroll()
    await billing.published(TermStarted)
    billing.move(back)
    await billing.settle()
    (offer,) = await billing.published(RenewalOffered)
    assert offer.decide_by == back + timedelta(days=30)
    assert await billing.times(RenewalOffered) == [back]
    await billing.published(TermEnded, 0)
    return await billing.only("renewals")


async def test_after_an_outage_of_the_whole_notice_period_the_offer_can_still_be_accepted(
    billing: Billing,
) -> None:
    renewal = await offered_late(billing)
    assert (renewal["state"], renewal["offered_at"]) == ("offered", BACK.isoformat().replace("+00:00", "Z"))
    accepted_at = datetime(2026, 10, 5, 12, tzinfo=UTC)
    billing.move(accepted_at)
    assert (await billing.decide(renewal["renewal_id"], "accepted")).status_code == 200

    (decided,) = await billing.published(RenewalDecided)
    assert (decided.next_starts_at, decided.next_ends_at) == (accepted_at, one_year_after(accepted_at))
    (ended,) = await billing.published(TermEnded)
    assert (ended.reason, ended.renewed, ended.ended_at) == ("completed", True, END)
    _, second = await billing.published(TermStarted, 2)
    assert (second.number, second.starts_at, second.ends_at) == (2, accepted_at, one_year_after(accepted_at))
    # No service was provided or owed before the acceptance: its fiscal year pays.
    invoices = await billing.published(InvoiceIssued, 2)
    assert invoices[-1].invoice_number == "NASA-2027-01"
    items = (await billing.get("/v1/agencies/NASA/invoices"))["items"]
    assert items[-1]["period_of_performance"] == {"first_day": "2026-10-05", "last_day": "2027-10-04"}
    begin = [(await billing.get(f"/v1/forecast?fiscal_year={year}"))["lines"] for year in (2026, 2027)]
    assert [len(lines) for lines in begin] == [0, 1]
    await billing.assert_books_balance()


async def test_a_late_offer_without_an_answer_lapses_at_its_own_deadline(billing: Billing) -> None:
    await offered_late(billing)
    billing.move(DECIDE_BY - MOMENT)
    await billing.settle()
    await billing.published(TermEnded, 0)
    billing.move(DECIDE_BY)
    (ended,) = await billing.published(TermEnded)
    assert (ended.reason, ended.renewed, ended.ended_at) == ("completed", False, END)
    await billing.settle()
    await billing.published(RenewalDecided, 0)
    assert (await billing.only("renewals"))["state"] == "lapsed"
    assert (await billing.only("terms"))["ended_at"] == END.isoformat().replace("+00:00", "Z")


async def test_a_late_offer_that_is_declined_after_the_end_ends_the_term_at_once(billing: Billing) -> None:
    renewal = await offered_late(billing)
    await billing.decide(renewal["renewal_id"], "declined")
    (ended,) = await billing.published(TermEnded)
    assert (ended.renewed, ended.ended_at) == (False, END)
    await billing.published(TermStarted, 1)


async def test_an_offer_that_is_late_within_the_term_is_open_past_its_end(billing: Billing) -> None:
    renewal = await offered_late(billing, back=END - timedelta(days=10))
    billing.move(END)
    await billing.settle()
    await billing.published(TermEnded, 0)
    await billing.decide(renewal["renewal_id"], "accepted")
    _, second = await billing.published(TermStarted, 2)
    assert second.starts_at == END


async def test_a_late_offer_that_is_accepted_before_the_end_leaves_no_break(billing: Billing) -> None:
    renewal = await offered_late(billing, back=END - timedelta(days=10))
    billing.move(END - timedelta(days=9))
    await billing.decide(renewal["renewal_id"], "accepted")
    billing.move(END + timedelta(hours=1))
    (ended,) = await billing.published(TermEnded)
    assert (ended.renewed, ended.ended_at) == (True, END)
    _, second = await billing.published(TermStarted, 2)
    assert second.starts_at == END


async def test_no_term_ends_without_an_offer_even_if_the_offers_deadline_is_parked(
    billing: Billing,
) -> None:
    await billing.enroll()
    await billing.published(TermStarted)
    parked = "update deadline set parked_at = now(), reason = 'a defect' where kind = 'offer_renewal'"
    assert await billing.service.admin.execute(parked) == "UPDATE 1"
    billing.move(END)
    (offer,) = await billing.published(RenewalOffered)
    assert offer.decide_by == END + timedelta(days=30)
    # The operator's retry comes later, and offers nothing a second time.
    await billing.service.admin.execute("update deadline set parked_at = null where kind = 'offer_renewal'")
    billing.move(END + MOMENT)
    await billing.settle()
    await billing.published(RenewalOffered, 1)
    await billing.published(TermEnded, 0)


async def test_a_withdrawal_while_a_late_offer_is_open_completes_the_term(billing: Billing) -> None:
    await offered_late(billing)
    await billing.withdraw(BACK)
    (ended,) = await billing.published(TermEnded)
    assert (ended.reason, ended.renewed, ended.ended_at) == ("completed", False, END)
    billing.move(DECIDE_BY)
    await billing.settle()
    await billing.published(TermEnded, 1)
    await billing.published(TermStarted, 1)

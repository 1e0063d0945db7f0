"""Commands that a restore has lost are repeated while the deadlines are held, however late that is."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from muster_billing.bootstrap import build
from muster_billing.settings import BillingSettings
from muster_contracts.billing import (
    InvoicePaid,
    InvoiceVoided,
    PaymentOverdue,
    RenewalOffered,
    TermEnded,
    TermEndReason,
    TermStarted,
)
from muster_contracts.calendar import one_year_after
from muster_runtime.process.roles import ALL_ROLES, Role
from tests.integration.billing.conftest import START, Billing, enrolled, withdrawn
from tests.support.eventually import eventually
from tests.support.failover import fail_over, finish_comparison
from tests.support.services import ServiceRunner

END = one_year_after(START)
DOLLAR = {"amount_minor": 100, "currency": "USD"}


async def hold(billing: Billing, since: datetime) -> None:
    await billing.service.admin.execute("update epoch set deadlines_held_since = $1", since)


async def release(billing: Billing) -> None:
    reply = await billing.service.client.post("/v1/deadlines/release", json={"reason": "all commands were repeated"})
    assert reply.status_code == 200, reply.text


async def withdraw(billing: Billing, withdrawn_at: datetime) -> None:
    """Let billing read the withdrawal while its deadlines are held."""
    await billing.withdraw(withdrawn_at)

    async def end_waits() -> bool:
        due = "select due_at from deadline where kind = 'end-enrollment' and subject = 'enr_1'"
        return bool(await billing.service.admin.fetchval(due) == withdrawn_at)

    await eventually(end_waits)
    assert (await billing.only("terms"))["state"] == "running"


async def no_deadline_is_left(billing: Billing) -> bool:
    return not await billing.service.admin.fetchval("select count(*) from deadline")


async def test_a_renewal_that_was_accepted_in_time_is_accepted_again_after_the_end_without_a_break(
    billing: Billing, offered: Callable[[], Awaitable[dict[str, Any]]]
) -> None:
    offer = await offered()
    await hold(billing, END - timedelta(hours=1))
    billing.move(END + timedelta(hours=2))
    accepted = await billing.decide(offer["renewal_id"], "accepted")
    assert (accepted.status_code, accepted.json()["next_starts_at"]) == (200, offer["next_starts_at"]), accepted.text
    await release(billing)
    (ended,) = await billing.published(TermEnded)
    assert (ended.renewed, ended.ended_at) == (True, END)
    assert [term.starts_at for term in await billing.published(TermStarted, 2)] == [START, END]
    await billing.assert_books_balance()


async def test_after_the_release_a_decision_is_too_late_again(
    billing: Billing, offered: Callable[[], Awaitable[dict[str, Any]]]
) -> None:
    offer = await offered()
    await hold(billing, END - timedelta(hours=1))
    billing.move(END + timedelta(hours=2))
    await release(billing)
    (ended,) = await billing.published(TermEnded)
    assert not ended.renewed
    assert (await billing.decide(offer["renewal_id"], "accepted")).status_code == 409


@pytest.mark.parametrize("repeated", [True, False], ids=["paid again", "never paid"])
async def test_a_withdrawal_that_is_read_again_leaves_time_to_repeat_the_payment_before_it(
    billing: Billing, repeated: bool
) -> None:
    await billing.enroll()
    invoice = await billing.only("invoices")
    await hold(billing, START)
    billing.move(START + timedelta(days=31))  # the invoice is overdue
    await withdraw(billing, START + timedelta(days=1))
    assert (await billing.only("invoices"))["state"] == "issued"
    if repeated:
        assert (await billing.pay(invoice["invoice_id"], DOLLAR)).status_code == 201
    await release(billing)
    await billing.published(InvoicePaid if repeated else InvoiceVoided)
    (ended,) = await billing.published(TermEnded)
    assert (ended.reason, ended.ended_at) == (TermEndReason.WITHDRAWN, START + timedelta(days=1))
    await eventually(partial(no_deadline_is_left, billing))
    assert (await billing.only("invoices"))["state"] == ("paid" if repeated else "void")
    assert await billing.service.published(PaymentOverdue) == []
    await billing.assert_books_balance()


async def test_a_withdrawal_that_is_read_again_leaves_time_to_repeat_the_acceptance_before_it(
    billing: Billing, offered: Callable[[], Awaitable[dict[str, Any]]]
) -> None:
    """The agency withdrew in the term that it had accepted. Billing has lost both."""
    offer = await offered()
    await hold(billing, END - timedelta(hours=1))
    billing.move(END + timedelta(days=40))
    await withdraw(billing, END + timedelta(days=30))
    accepted = await billing.decide(offer["renewal_id"], "accepted")
    assert accepted.status_code == 200, accepted.text
    await release(billing)
    ends = [(each.reason, each.renewed, each.ended_at) for each in await billing.published(TermEnded, 2)]
    assert ends == [
        (TermEndReason.COMPLETED, True, END),
        (TermEndReason.WITHDRAWN, False, END + timedelta(days=30)),
    ]
    assert [term.starts_at for term in await billing.published(TermStarted, 2)] == [START, END]
    (voided,) = await billing.published(InvoiceVoided)
    invoices = (await billing.get("/v1/agencies/NASA/invoices"))["items"]
    assert [(each["invoice_id"], each["state"]) for each in invoices][1:] == [(voided.invoice_id, "void")]
    await billing.assert_books_balance()


async def test_after_a_failover_a_withdrawal_takes_effect_only_once_the_relay_has_compared(billing: Billing) -> None:
    """It may be read again, and the payment before it may be lost."""
    withdrawn_at = START + timedelta(days=1)
    await billing.enroll()
    await billing.published(TermStarted)
    await fail_over(billing.service.admin)
    billing.move(START + timedelta(days=2))
    await withdraw(billing, withdrawn_at)
    await finish_comparison(billing.service.admin)
    (ended,) = await billing.published(TermEnded)
    assert (ended.reason, ended.ended_at) == (TermEndReason.WITHDRAWN, withdrawn_at)
    await billing.published(InvoiceVoided)
    await billing.assert_books_balance()


async def test_an_agency_that_withdrew_and_enrolled_again_has_its_new_term_while_the_deadlines_are_held(
    billing: Billing,
) -> None:
    withdrawn_at, enrolled_at = START + timedelta(days=1), START + timedelta(days=2)
    await billing.enroll()
    invoice = await billing.only("invoices")
    await hold(billing, START)
    billing.move(enrolled_at)
    await withdraw(billing, withdrawn_at)
    await billing.enroll(starts_at=enrolled_at, enrollment_id="enr_2")
    (ended,) = await billing.published(TermEnded)
    assert (ended.reason, ended.ended_at) == (TermEndReason.WITHDRAWN, withdrawn_at)
    assert [term.starts_at for term in await billing.published(TermStarted, 2)] == [START, enrolled_at]
    assert (await billing.pay(invoice["invoice_id"], DOLLAR)).status_code == 201
    await release(billing)

    async def no_end_waits() -> bool:
        return not await billing.service.admin.fetchval("select count(*) from deadline where kind = 'end-enrollment'")

    await eventually(no_end_waits)
    invoices = (await billing.get("/v1/agencies/NASA/invoices"))["items"]
    assert [each["state"] for each in invoices] == ["paid", "issued"]
    await billing.published(TermEnded)
    await billing.assert_books_balance()


async def test_the_earlier_term_ends_at_the_withdrawal_also_if_both_events_are_read_at_once(
    run_service: ServiceRunner,
) -> None:
    service = await run_service(build, BillingSettings, roles=ALL_ROLES - {Role.CONSUMER})
    billing = Billing(service)
    withdrawn_at, enrolled_at = START + timedelta(days=1), START + timedelta(days=2)
    billing.move(enrolled_at)
    await hold(billing, START)
    await service.publish(
        enrolled("NASA", START, "enr_1"), withdrawn("NASA", withdrawn_at), enrolled("NASA", enrolled_at, "enr_2")
    )
    await run_service(build, BillingSettings, roles=frozenset({Role.CONSUMER}), beside=service, clock=service.clock)
    (ended,) = await billing.published(TermEnded)
    assert (ended.reason, ended.ended_at) == (TermEndReason.WITHDRAWN, withdrawn_at)


async def test_after_the_release_nothing_is_offered_or_demanded_of_an_agency_that_has_withdrawn(
    billing: Billing,
) -> None:
    """The notices and the offer were due before the withdrawal, while deadlines were held."""
    await billing.enroll()
    await billing.only("invoices")
    await hold(billing, START)
    billing.move(END - timedelta(days=50))
    await billing.withdraw(END - timedelta(days=55))

    async def end_is_put_off() -> bool:
        return bool(await billing.service.admin.fetchval("select true from deadline where kind = 'end-enrollment'"))

    await eventually(end_is_put_off)
    await release(billing)
    await billing.published(InvoiceVoided)
    assert await billing.service.published(PaymentOverdue) == []
    assert await billing.service.published(RenewalOffered) == []
    await billing.assert_books_balance()


async def test_after_the_release_an_agency_that_left_after_its_terms_end_is_offered_nothing_and_told_what_it_owes(
    billing: Billing,
) -> None:
    """As if the withdrawal had been read before the deadlines: it voids no invoice of a term that was over."""
    await billing.enroll()
    await billing.only("invoices")
    await hold(billing, START)
    billing.move(END + timedelta(days=10))
    await withdraw(billing, END + timedelta(days=5))
    await release(billing)
    (ended,) = await billing.published(TermEnded)
    assert (ended.reason, ended.renewed, ended.ended_at) == (TermEndReason.COMPLETED, False, END)
    (overdue,) = await billing.published(PaymentOverdue)
    assert overdue.level == 1
    assert await billing.service.published(RenewalOffered) == []
    await billing.assert_books_balance()

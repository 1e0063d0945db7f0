"""Commands that a restore has lost are repeated while the deadlines are held, however late that is."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from muster_contracts.billing import InvoicePaid, InvoiceVoided, TermEnded, TermStarted
from muster_contracts.calendar import one_year_after
from tests.integration.billing.conftest import START, Billing
from tests.support.eventually import eventually

END = one_year_after(START)
DOLLAR = {"amount_minor": 100, "currency": "USD"}


async def hold(billing: Billing, since: datetime) -> None:
    await billing.service.admin.execute("update epoch set deadlines_held_since = $1", since)


async def release(billing: Billing) -> None:
    reply = await billing.service.client.post("/v1/deadlines/release", json={"reason": "all commands were repeated"})
    assert reply.status_code == 200, reply.text


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
    await billing.withdraw(START + timedelta(days=1))

    async def term_is_over() -> bool:
        return bool((await billing.only("terms"))["state"] == "ended")

    await eventually(term_is_over)
    assert (await billing.only("invoices"))["state"] == "issued"
    if repeated:
        assert (await billing.pay(invoice["invoice_id"], DOLLAR)).status_code == 201
    await release(billing)
    await billing.published(InvoicePaid if repeated else InvoiceVoided)

    async def no_deadline_is_left() -> bool:
        return not await billing.service.admin.fetchval("select count(*) from deadline")

    await eventually(no_deadline_is_left)
    assert (await billing.only("invoices"))["state"] == ("paid" if repeated else "void")
    await billing.assert_books_balance()

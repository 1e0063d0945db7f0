"""Every transaction sums to zero, and the accounts show what is owed."""

from collections import Counter
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from muster_billing.domain import Invoice, Issuance, Money, ledger
from muster_billing.domain.ledger import Account

NOW = datetime(2025, 8, 6, tzinfo=UTC)

amounts = st.integers(min_value=1, max_value=10**12)
fates = st.sampled_from(["unpaid", "paid", "voided"])


@given(st.lists(st.tuples(amounts, fates)))
def test_over_any_invoices_every_transaction_sums_to_zero_and_the_receivable_is_what_is_unpaid(
    cases: list[tuple[int, str]],
) -> None:
    balances: Counter[Account] = Counter()
    for amount, fate in cases:
        invoice = Invoice("inv_1", "NASA", "term_1", 2025, Money(amount, "USD")).issue(Issuance.at(NOW, 1))
        booked = [ledger.invoice_issued(invoice)]
        booked += [ledger.payment_received(invoice)] if fate == "paid" else []
        booked += [ledger.invoice_voided(invoice)] if fate == "voided" else []
        for transaction in booked:
            assert sum(entry.amount_minor for entry in transaction.entries) == 0
            for entry in transaction.entries:
                balances[entry.account] += entry.amount_minor
    assert sum(balances.values()) == 0
    assert balances[Account.RECEIVABLE] == sum(amount for amount, fate in cases if fate == "unpaid")
    assert balances[Account.CASH] == sum(amount for amount, fate in cases if fate == "paid")
    assert balances[Account.REVENUE] == -sum(amount for amount, fate in cases if fate != "voided")

"""The double-entry ledger: every transaction moves one amount between two accounts, so it sums to zero."""

from dataclasses import dataclass
from enum import StrEnum

from muster_billing.domain.invoices import Invoice


class Account(StrEnum):
    """The accounts of each agency. A debit is positive, a credit negative."""

    RECEIVABLE = "accounts_receivable"
    REVENUE = "revenue"
    CASH = "cash"


class TransactionKind(StrEnum):
    """The transactions that can be booked for an invoice, each at most once."""

    INVOICE_ISSUED = "invoice_issued"
    PAYMENT_RECEIVED = "payment_received"
    INVOICE_VOIDED = "invoice_voided"


@dataclass(frozen=True, slots=True)
class Entry:
    """A change of one account, in minor units."""

    account: Account
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction: its entries are booked together, in one currency, and sum to zero."""

    agency_id: str
    invoice_id: str
    kind: TransactionKind
    currency: str
    entries: tuple[Entry, Entry]


def invoice_issued(invoice: Invoice) -> Transaction:
    """The agency now owes the amount."""
    return _move(invoice, TransactionKind.INVOICE_ISSUED, debit=Account.RECEIVABLE, credit=Account.REVENUE)


def payment_received(invoice: Invoice) -> Transaction:
    """The agency's debt becomes cash."""
    return _move(invoice, TransactionKind.PAYMENT_RECEIVED, debit=Account.CASH, credit=Account.RECEIVABLE)


def invoice_voided(invoice: Invoice) -> Transaction:
    """The reverse of its issue: nothing is owed, and nothing was earned."""
    return _move(invoice, TransactionKind.INVOICE_VOIDED, debit=Account.REVENUE, credit=Account.RECEIVABLE)


def _move(invoice: Invoice, kind: TransactionKind, *, debit: Account, credit: Account) -> Transaction:
    amount = invoice.amount.amount_minor
    return Transaction(
        agency_id=invoice.agency_id,
        invoice_id=invoice.id,
        kind=kind,
        currency=invoice.amount.currency,
        entries=(Entry(debit, amount), Entry(credit, -amount)),
    )

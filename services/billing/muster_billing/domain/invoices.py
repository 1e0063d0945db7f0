"""Invoices, overdue notices, and payments."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from muster_billing.domain.money import Money
from muster_billing.errors import InvoiceNotPayable
from muster_runtime.errors import InvalidInput

# How long after its issue an invoice is due: the Prompt Payment Act's period, 31 U.S.C. 3903(a)(1)(B).
PAYMENT_PERIOD = timedelta(days=30)

# When the overdue notices of levels 1, 2, and 3 are sent, counted from the due instant. No service is cut off. A late
# notice postpones the following ones.
OVERDUE_AFTER = (timedelta(days=0), timedelta(days=30), timedelta(days=60))


class InvoiceState(StrEnum):
    """The state of an invoice.

    A draft belongs to a term that has not started: it has no number, and nothing is owed on it.
    """

    DRAFT = "draft"
    ISSUED = "issued"
    PAID = "paid"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class Issuance:
    """When an invoice was issued. `ordinal` counts its agency's invoices of one fiscal year from 1, without gaps."""

    ordinal: int
    issued_at: datetime
    due_at: datetime

    @classmethod
    def at(cls, issued_at: datetime, ordinal: int) -> "Issuance":
        """The issuance at this instant: the time to pay counts from here, however late the term began."""
        return cls(ordinal, issued_at, issued_at + PAYMENT_PERIOD)


@dataclass(frozen=True, slots=True)
class OverdueNotice:
    """A notice, sent at `send_at`, that an invoice due at `due_at` is unpaid."""

    level: int
    due_at: datetime
    send_at: datetime

    def days_overdue(self, now: datetime) -> int:
        """Whole days since the due instant."""
        return (now - self.due_at).days

    def postpone(self, earlier: "OverdueNotice", sent_at: datetime) -> "OverdueNotice":
        """This notice, postponed by the whole days by which the previous one was late."""
        return replace(self, send_at=self.send_at + timedelta(days=(sent_at - earlier.send_at).days))


@dataclass(frozen=True, slots=True)
class Invoice:
    """The one invoice of a term."""

    id: str
    agency_id: str
    term_id: str
    fiscal_year: int
    amount: Money
    state: InvoiceState = InvoiceState.DRAFT
    issuance: Issuance | None = None
    overdue_level: int = 0
    paid_at: datetime | None = None
    voided_at: datetime | None = None
    void_reason: str | None = None

    @property
    def next_notice(self) -> OverdueNotice | None:
        """The next overdue notice if the invoice stays unpaid; None if there is none."""
        if self.state is not InvoiceState.ISSUED or not self.issuance or self.overdue_level == len(OVERDUE_AFTER):
            return None
        due_at = self.issuance.due_at
        return OverdueNotice(self.overdue_level + 1, due_at, due_at + OVERDUE_AFTER[self.overdue_level])

    def issue(self, issuance: Issuance) -> "Invoice":
        return replace(self, state=InvoiceState.ISSUED, issuance=issuance)

    def pay(self, amount: Money, paid_at: datetime) -> "Invoice":
        """The invoice, paid in full.

        Raises InvoiceNotPayable unless it is issued and unpaid, and InvalidInput unless the amount is exactly its own.
        """
        if self.state is not InvoiceState.ISSUED:
            raise InvoiceNotPayable(f"invoice {self.id} is {self.state}; only an issued invoice can be paid")
        if amount.currency != self.amount.currency:
            raise InvalidInput(
                "amount.currency", amount.currency, f"must be the invoice's currency, {self.amount.currency}"
            )
        if amount.amount_minor != self.amount.amount_minor:
            raise InvalidInput(
                "amount.amount_minor",
                amount.amount_minor,
                f"must be the invoice's exact amount, {self.amount.amount_minor}",
            )
        return replace(self, state=InvoiceState.PAID, paid_at=paid_at)

    def void(self, reason: str, voided_at: datetime) -> "Invoice":
        return replace(self, state=InvoiceState.VOID, void_reason=reason, voided_at=voided_at)

    def escalate(self, notice: OverdueNotice) -> "Invoice":
        return replace(self, overdue_level=notice.level)


def invoice_number(agency_id: str, fiscal_year: int, ordinal: int) -> str:
    """For example NASA-2025-01: the agency, the fiscal year that pays, and the count within both."""
    return f"{agency_id}-{fiscal_year}-{ordinal:02d}"


@dataclass(frozen=True, slots=True)
class Payment:
    """What an agency paid on an invoice."""

    id: str
    agency_id: str
    invoice_id: str
    amount: Money
    reference: str
    paid_at: datetime

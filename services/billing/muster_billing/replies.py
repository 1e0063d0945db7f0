"""The replies of the routes."""

from datetime import date

from pydantic import BaseModel

from muster_billing.domain import (
    Invoice,
    InvoiceState,
    Payment,
    Renewal,
    RenewalState,
    Term,
    TermState,
    invoice_number,
)
from muster_billing.domain.ledger import Account, TransactionKind
from muster_billing.publishing import money
from muster_contracts import AgencyId, Instant, Money


class PeriodReply(BaseModel):
    """The first and the last day on which the service is provided, both inclusive."""

    first_day: date
    last_day: date

    @classmethod
    def of(cls, term: Term) -> "PeriodReply":
        return cls(first_day=term.first_day, last_day=term.last_day)


class TermReply(BaseModel):
    """A term [starts_at, ends_at), and the fiscal year that pays for it."""

    term_id: str
    agency_id: AgencyId
    enrollment_id: str
    number: int
    state: TermState
    starts_at: Instant
    ends_at: Instant
    price: Money
    fiscal_year: int
    period_of_performance: PeriodReply
    ended_at: Instant | None
    end_reason: str | None

    @classmethod
    def of(cls, term: Term) -> "TermReply":
        return cls(
            term_id=term.id,
            agency_id=term.agency_id,
            enrollment_id=term.enrollment_id,
            number=term.number,
            state=term.state,
            starts_at=term.starts_at,
            ends_at=term.ends_at,
            price=money(term.price),
            fiscal_year=term.fiscal_year,
            period_of_performance=PeriodReply.of(term),
            ended_at=term.ended_at,
            end_reason=term.end_reason,
        )


class InvoiceReply(BaseModel):
    """The invoice of a term; a draft has no number yet."""

    invoice_id: str
    invoice_number: str | None
    agency_id: AgencyId
    term_id: str
    state: InvoiceState
    amount: Money
    fiscal_year: int
    period_of_performance: PeriodReply
    issued_at: Instant | None
    due_at: Instant | None
    overdue_level: int
    paid_at: Instant | None
    voided_at: Instant | None
    void_reason: str | None

    @classmethod
    def of(cls, invoice: Invoice, term: Term) -> "InvoiceReply":
        issuance = invoice.issuance
        return cls(
            invoice_id=invoice.id,
            invoice_number=(
                invoice_number(invoice.agency_id, invoice.fiscal_year, issuance.ordinal) if issuance else None
            ),
            agency_id=invoice.agency_id,
            term_id=invoice.term_id,
            state=invoice.state,
            amount=money(invoice.amount),
            fiscal_year=invoice.fiscal_year,
            period_of_performance=PeriodReply.of(term),
            issued_at=issuance.issued_at if issuance else None,
            due_at=issuance.due_at if issuance else None,
            overdue_level=invoice.overdue_level,
            paid_at=invoice.paid_at,
            voided_at=invoice.voided_at,
            void_reason=invoice.void_reason,
        )


class PaymentReply(BaseModel):
    """A payment of an invoice."""

    payment_id: str
    invoice_id: str
    amount: Money
    reference: str
    paid_at: Instant

    @classmethod
    def of(cls, payment: Payment) -> "PaymentReply":
        return cls(
            payment_id=payment.id,
            invoice_id=payment.invoice_id,
            amount=money(payment.amount),
            reference=payment.reference,
            paid_at=payment.paid_at,
        )


class RenewalReply(BaseModel):
    """An offer of the next term; the agency must decide before `decide_by`."""

    renewal_id: str
    agency_id: AgencyId
    term_id: str
    state: RenewalState
    price: Money
    next_starts_at: Instant
    next_ends_at: Instant
    decide_by: Instant
    offered_at: Instant
    decided_at: Instant | None

    @classmethod
    def of(cls, renewal: Renewal) -> "RenewalReply":
        return cls(
            renewal_id=renewal.id,
            agency_id=renewal.agency_id,
            term_id=renewal.term_id,
            state=renewal.state,
            price=money(renewal.price),
            next_starts_at=renewal.next_starts_at,
            next_ends_at=renewal.next_ends_at,
            decide_by=renewal.decide_by,
            offered_at=renewal.offered_at,
            decided_at=renewal.decided_at,
        )


class EntryReply(BaseModel):
    """An entry of a transaction: debits are positive, credits negative."""

    account: Account
    amount: Money


class TransactionReply(BaseModel):
    """A ledger transaction; its entries sum to zero."""

    transaction_id: int
    agency_id: AgencyId
    invoice_id: str
    kind: TransactionKind
    recorded_at: Instant
    entries: list[EntryReply]


class TermWithoutInvoiceReply(BaseModel):
    """A term that has no invoice."""

    agency_id: AgencyId
    term_id: str
    number: int


class MisbookedInvoiceReply(BaseModel):
    """An invoice that lacks a transaction that its state requires, or has one that its state forbids."""

    agency_id: AgencyId
    invoice_id: str
    kind: TransactionKind
    booked: bool


class UnbalancedAccountReply(BaseModel):
    """An account whose ledger balance differs from its invoices and payments."""

    agency_id: AgencyId
    account: Account
    currency: str
    ledger_minor: int
    expected_minor: int


class ReconciliationReply(BaseModel):
    """The differences between terms, invoices, and the ledger; every list is empty if they agree."""

    terms_without_invoice: list[TermWithoutInvoiceReply]
    misbooked_invoices: list[MisbookedInvoiceReply]
    unbalanced_accounts: list[UnbalancedAccountReply]


class ForecastLineReply(BaseModel):
    """Renewals in one state: accepted ones are agreed, offered ones are still open."""

    state: RenewalState
    renewals: int
    amount: Money


class ForecastReply(BaseModel):
    """The renewals that begin in a fiscal year, totaled by state."""

    fiscal_year: int
    lines: list[ForecastLineReply]

"""Converts facts of the domain to the events that publish them."""

from datetime import datetime

from muster_billing.domain import Invoice, Issuance, Money, OverdueNotice, Payment, Renewal, Term, invoice_number
from muster_contracts import Money as EventMoney
from muster_contracts.billing import (
    InvoiceIssued,
    InvoicePaid,
    InvoiceVoided,
    PaymentOverdue,
    RenewalDecided,
    RenewalDecision,
    RenewalOffered,
    TermEnded,
    TermEndReason,
    TermStarted,
)


def term_started(term: Term) -> TermStarted:
    return TermStarted(
        agency_id=term.agency_id,
        term_id=term.id,
        enrollment_id=term.enrollment_id,
        number=term.number,
        starts_at=term.starts_at,
        ends_at=term.ends_at,
        price=money(term.price),
    )


def term_ended(term: Term, reason: TermEndReason, ended_at: datetime, *, renewed: bool) -> TermEnded:
    return TermEnded(
        agency_id=term.agency_id,
        term_id=term.id,
        enrollment_id=term.enrollment_id,
        reason=reason,
        renewed=renewed,
        ended_at=ended_at,
    )


def invoice_issued(invoice: Invoice, issuance: Issuance) -> InvoiceIssued:
    return InvoiceIssued(
        agency_id=invoice.agency_id,
        term_id=invoice.term_id,
        invoice_id=invoice.id,
        invoice_number=invoice_number(invoice.agency_id, invoice.fiscal_year, issuance.ordinal),
        amount=money(invoice.amount),
        issued_at=issuance.issued_at,
        due_at=issuance.due_at,
    )


def invoice_paid(invoice: Invoice, payment: Payment) -> InvoicePaid:
    return InvoicePaid(
        agency_id=invoice.agency_id,
        term_id=invoice.term_id,
        invoice_id=invoice.id,
        payment_id=payment.id,
        amount=money(payment.amount),
        paid_at=payment.paid_at,
    )


def invoice_voided(invoice: Invoice, reason: str, voided_at: datetime) -> InvoiceVoided:
    return InvoiceVoided(
        agency_id=invoice.agency_id,
        term_id=invoice.term_id,
        invoice_id=invoice.id,
        reason=reason,
        voided_at=voided_at,
    )


def payment_overdue(invoice: Invoice, notice: OverdueNotice, now: datetime) -> PaymentOverdue:
    return PaymentOverdue(
        agency_id=invoice.agency_id,
        term_id=invoice.term_id,
        invoice_id=invoice.id,
        amount=money(invoice.amount),
        due_at=notice.due_at,
        days_overdue=notice.days_overdue(now),
        level=notice.level,
    )


def renewal_offered(renewal: Renewal) -> RenewalOffered:
    return RenewalOffered(
        agency_id=renewal.agency_id,
        term_id=renewal.term_id,
        renewal_id=renewal.id,
        price=money(renewal.price),
        next_starts_at=renewal.next_starts_at,
        next_ends_at=renewal.next_ends_at,
        decide_by=renewal.decide_by,
    )


def renewal_decided(renewal: Renewal, decision: RenewalDecision, decided_at: datetime) -> RenewalDecided:
    return RenewalDecided(
        agency_id=renewal.agency_id,
        term_id=renewal.term_id,
        renewal_id=renewal.id,
        decision=decision,
        price=money(renewal.price),
        next_starts_at=renewal.next_starts_at,
        next_ends_at=renewal.next_ends_at,
        decided_at=decided_at,
    )


def money(amount: Money) -> EventMoney:
    """An amount in the contracts' form."""
    return EventMoney(amount_minor=amount.amount_minor, currency=amount.currency)

"""Events of the billing service: terms, invoices and renewals."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from muster_contracts.event import Event, event
from muster_contracts.types import Instant, Money


class RenewalDecision(StrEnum):
    """An agency's answer to a renewal offer. No answer by the day is a decline."""

    ACCEPTED = "accepted"
    DECLINED = "declined"


class TermEndReason(StrEnum):
    """Why a term ended."""

    COMPLETED = "completed"
    WITHDRAWN = "withdrawn"


class _TermFact(Event):
    topic: ClassVar[str] = "muster.billing.term"

    term_id: str = Field(examples=["term_01987b3e0000700080000000000000da"])


@event
class TermStarted(_TermFact):
    """An agency's term of a year began, at a price agreed beforehand."""

    event_type: ClassVar[str] = "muster.billing.TermStarted.v1"

    enrollment_id: str
    number: int = Field(ge=1, description="1 for the agency's first term, and so on.")
    starts_at: Instant = Field(description="Inclusive start.")
    ends_at: Instant = Field(description="Exclusive end.")
    price: Money


class _InvoiceFact(_TermFact):
    invoice_id: str = Field(examples=["inv_01987b3e0000700080000000000000db"])


@event
class InvoiceIssued(_InvoiceFact):
    """The one invoice of a term was issued."""

    event_type: ClassVar[str] = "muster.billing.InvoiceIssued.v1"

    invoice_number: str = Field(examples=["NASA-2025-01"])
    amount: Money
    issued_at: Instant
    due_at: Instant


@event
class InvoicePaid(_InvoiceFact):
    """An invoice was paid in full."""

    event_type: ClassVar[str] = "muster.billing.InvoicePaid.v1"

    payment_id: str = Field(examples=["pay_01987b3e0000700080000000000000dc"])
    amount: Money
    paid_at: Instant


@event
class InvoiceVoided(_InvoiceFact):
    """An unpaid invoice was voided; nothing is owed on it."""

    event_type: ClassVar[str] = "muster.billing.InvoiceVoided.v1"

    reason: str
    voided_at: Instant


@event
class PaymentOverdue(_InvoiceFact):
    """An invoice is unpaid past its due instant. Nothing is cut off by it."""

    event_type: ClassVar[str] = "muster.billing.PaymentOverdue.v1"

    amount: Money
    due_at: Instant
    days_overdue: int = Field(ge=0)
    level: int = Field(ge=1, description="Escalation level, from 1.")


@event
class RenewalOffered(_TermFact):
    """A further term was offered. Nothing renews by itself."""

    event_type: ClassVar[str] = "muster.billing.RenewalOffered.v1"

    renewal_id: str = Field(examples=["ren_01987b3e0000700080000000000000dd"])
    price: Money
    next_starts_at: Instant
    next_ends_at: Instant
    decide_by: Instant


@event
class RenewalDecided(_TermFact):
    """A renewal offer was accepted or declined."""

    event_type: ClassVar[str] = "muster.billing.RenewalDecided.v1"

    renewal_id: str
    decision: RenewalDecision | str
    price: Money
    next_starts_at: Instant
    next_ends_at: Instant
    decided_at: Instant


@event
class TermEnded(_TermFact):
    """A term ended: completed at its end, or cut short by a withdrawal."""

    event_type: ClassVar[str] = "muster.billing.TermEnded.v1"

    reason: TermEndReason | str
    renewed: bool = Field(description="Whether an accepted renewal follows on without a break.")
    ended_at: Instant

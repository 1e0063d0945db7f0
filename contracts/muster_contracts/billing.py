"""Events of the billing service: terms, invoices and renewals."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from muster_contracts.event import Event, event
from muster_contracts.types import DollarAmount, Instant, Open

RenewalId = Annotated[
    str,
    Field(description="The renewal that was offered.", examples=["ren_01987b3e0000700080000000000000dd"]),
]


class RenewalDecision(StrEnum):
    """An agency's answer to a renewal offer."""

    ACCEPTED = "accepted"
    DECLINED = "declined"


class TermEndReason(StrEnum):
    """Why a term ended."""

    COMPLETED = "completed"
    WITHDRAWN = "withdrawn"


class _TermFact(Event):
    topic: ClassVar[str] = "muster.billing.term"

    term_id: str = Field(
        description="The term: one agency's year in the programme.",
        examples=["term_01987b3e0000700080000000000000da"],
    )


@event
class TermStarted(_TermFact):
    """An agency's term of a year began, at a price agreed beforehand.

    Emitted once for each term: after the enrolment, or when an accepted renewal follows on.
    """

    event_type: ClassVar[str] = "muster.billing.TermStarted.v1"

    enrollment_id: str = Field(
        description="The enrolment that the term belongs to.",
        examples=["enr_01987b3e0000700080000000000000aa"],
    )
    number: int = Field(ge=1, description="1 for the agency's first term, and so on.", examples=[1, 2])
    starts_at: Instant = Field(description="Inclusive start, UTC.", examples=["2025-08-06T00:00:00Z"])
    ends_at: Instant = Field(description="Exclusive end, UTC.", examples=["2026-08-06T00:00:00Z"])
    price: DollarAmount = Field(description="Price of the whole term.")


class _InvoiceFact(_TermFact):
    invoice_id: str = Field(
        description="The invoice; a term has exactly one.",
        examples=["inv_01987b3e0000700080000000000000db"],
    )


@event
class InvoiceIssued(_InvoiceFact):
    """The one invoice of a term was issued.

    Emitted once for each term, in the transaction that starts it.
    """

    event_type: ClassVar[str] = "muster.billing.InvoiceIssued.v1"

    invoice_number: str = Field(description="The number printed on the invoice.", examples=["NASA-2025-01"])
    amount: DollarAmount = Field(description="Amount due.")
    issued_at: Instant = Field(description="When it was issued, UTC.", examples=["2025-08-06T00:00:00Z"])
    due_at: Instant = Field(
        description="When payment is due, UTC; unpaid at that instant it is overdue.",
        examples=["2025-09-05T00:00:00Z"],
    )


@event
class InvoicePaid(_InvoiceFact):
    """An invoice was paid in full.

    Emitted when a payment of the exact amount is recorded; there are no partial payments.
    """

    event_type: ClassVar[str] = "muster.billing.InvoicePaid.v1"

    payment_id: str = Field(
        description="The payment that settled the invoice.",
        examples=["pay_01987b3e0000700080000000000000dc"],
    )
    amount: DollarAmount = Field(description="Amount paid.")
    paid_at: Instant = Field(
        description="When the payment was recorded, UTC.",
        examples=["2025-08-20T14:30:00Z", "2025-09-04T23:59:59.999999Z"],
    )


@event
class InvoiceVoided(_InvoiceFact):
    """An unpaid invoice was voided; nothing is owed on it.

    Emitted when the term ends by a withdrawal before the invoice is paid.
    """

    event_type: ClassVar[str] = "muster.billing.InvoiceVoided.v1"

    reason: str = Field(description="Why it was voided.", examples=["agency withdrew", ""])
    voided_at: Instant = Field(description="When it was voided, UTC.", examples=["2025-08-30T09:00:00Z"])


@event
class PaymentOverdue(_InvoiceFact):
    """An invoice is unpaid past its due instant. Nothing is cut off by it.

    Emitted at the due instant and again at each level of escalation.
    """

    event_type: ClassVar[str] = "muster.billing.PaymentOverdue.v1"

    amount: DollarAmount = Field(description="Amount owed.")
    due_at: Instant = Field(description="When payment was due, UTC.", examples=["2025-09-05T00:00:00Z"])
    days_overdue: int = Field(ge=0, description="Whole days since the due instant.", examples=[14, 0])
    level: int = Field(ge=1, description="Escalation level, from 1.", examples=[2, 1])


@event
class RenewalOffered(_TermFact):
    """A further term was offered. Nothing renews by itself.

    Emitted 60 days before the end of a term; after an outage as soon as possible, even after that end. `time` is when
    the offer was really given.
    """

    event_type: ClassVar[str] = "muster.billing.RenewalOffered.v1"

    renewal_id: RenewalId
    price: DollarAmount = Field(description="Price of the further term.")
    next_starts_at: Instant = Field(
        description="Inclusive start of the further term, UTC; accepted later, it starts with the acceptance.",
        examples=["2026-08-06T00:00:00Z"],
    )
    next_ends_at: Instant = Field(
        description="Exclusive end of the further term, UTC.",
        examples=["2027-08-06T00:00:00Z"],
    )
    decide_by: Instant = Field(
        description="Exclusive end of the time to answer, UTC: the end of the term, or later so that at least 30 days "
        "are left from the offer; without an answer nothing is renewed.",
        examples=["2026-08-06T00:00:00Z"],
    )


@event
class RenewalDecided(_TermFact):
    """A renewal offer was accepted or declined.

    Emitted when the agency answers. An offer without an answer lapses silently, and the term ends without renewal.
    """

    event_type: ClassVar[str] = "muster.billing.RenewalDecided.v1"

    renewal_id: RenewalId
    decision: Open[RenewalDecision] = Field(description="The answer.", examples=["accepted", "deferred"])
    price: DollarAmount = Field(description="Price of the further term.")
    next_starts_at: Instant = Field(
        description="Inclusive start of the further term, UTC.",
        examples=["2026-08-06T00:00:00Z"],
    )
    next_ends_at: Instant = Field(
        description="Exclusive end of the further term, UTC.",
        examples=["2027-08-06T00:00:00Z"],
    )
    decided_at: Instant = Field(description="When it was decided, UTC.", examples=["2026-07-01T12:00:00Z"])


@event
class TermEnded(_TermFact):
    """A term ended: completed at its end, or cut short by a withdrawal.

    Emitted once for each term, and `time` is the instant of its end. Where the offer of a further term came late, this
    event waits for the answer, or for the end of the time to answer.
    """

    event_type: ClassVar[str] = "muster.billing.TermEnded.v1"

    reason: Open[TermEndReason] = Field(description="Why the term ended.", examples=["completed", "superseded"])
    renewed: bool = Field(
        description="Whether an accepted renewal follows: without a break, unless it was accepted after this end.",
        examples=[True, False],
    )
    ended_at: Instant = Field(description="The instant of the end, UTC.", examples=["2026-08-06T00:00:00Z"])

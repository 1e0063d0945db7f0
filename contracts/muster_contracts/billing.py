"""Events of the billing service: terms, invoices, renewals, and audit seals."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from muster_contracts.audit import SealedAudit
from muster_contracts.event import Event, event
from muster_contracts.types import DollarAmount, Instant, Open

RenewalId = Annotated[
    str,
    Field(description="The renewal offer.", examples=["ren_01987b3e0000700080000000000000dd"]),
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
        description="The term: one year of an agency in the program.",
        examples=["term_01987b3e0000700080000000000000da"],
    )


@event
class TermStarted(_TermFact):
    """An agency's one-year term started, at an agreed price.

    Emitted once per term: after the enrollment, or when an accepted renewal starts.
    """

    event_type: ClassVar[str] = "muster.billing.TermStarted.v1"

    enrollment_id: str = Field(
        description="The enrollment that the term belongs to.",
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
    """The invoice of a term was issued.

    Emitted once per term, in the transaction that starts the term.
    """

    event_type: ClassVar[str] = "muster.billing.InvoiceIssued.v1"

    invoice_number: str = Field(description="The number printed on the invoice.", examples=["NASA-2025-01"])
    amount: DollarAmount = Field(description="Amount due.")
    issued_at: Instant = Field(description="Time of issue, UTC.", examples=["2025-08-06T00:00:00Z"])
    due_at: Instant = Field(
        description="When payment is due, UTC; an invoice unpaid at that instant is overdue.",
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

    Emitted when an agency withdraws before it paid the invoice.
    """

    event_type: ClassVar[str] = "muster.billing.InvoiceVoided.v1"

    reason: str = Field(description="The reason.", examples=["agency withdrew", ""])
    voided_at: Instant = Field(description="Time of the voiding, UTC.", examples=["2025-08-30T09:00:00Z"])


@event
class PaymentOverdue(_InvoiceFact):
    """An invoice is overdue. No service is cut off.

    Emitted at the due instant and again at each escalation level.
    """

    event_type: ClassVar[str] = "muster.billing.PaymentOverdue.v1"

    amount: DollarAmount = Field(description="Amount owed.")
    due_at: Instant = Field(description="When payment was due, UTC.", examples=["2025-09-05T00:00:00Z"])
    days_overdue: int = Field(ge=0, description="Whole days since the due instant.", examples=[14, 0])
    level: int = Field(ge=1, description="Escalation level, starting at 1.", examples=[2, 1])


@event
class RenewalOffered(_TermFact):
    """Another term was offered. Nothing renews automatically.

    Emitted 60 days before the end of a term; after an outage as soon as possible, even after that end. `time` is when
    the offer was actually made.
    """

    event_type: ClassVar[str] = "muster.billing.RenewalOffered.v1"

    renewal_id: RenewalId
    price: DollarAmount = Field(description="Price of the next term.")
    next_starts_at: Instant = Field(
        description="Inclusive start of the next term, UTC; if it is accepted later, it starts at the acceptance.",
        examples=["2026-08-06T00:00:00Z"],
    )
    next_ends_at: Instant = Field(
        description="Exclusive end of the next term, UTC.",
        examples=["2027-08-06T00:00:00Z"],
    )
    decide_by: Instant = Field(
        description="Exclusive deadline for the answer, UTC: the end of the term, or later so that the agency has at "
        "least 30 days; without an answer nothing is renewed.",
        examples=["2026-08-06T00:00:00Z"],
    )


@event
class RenewalDecided(_TermFact):
    """A renewal offer was accepted or declined.

    Emitted when the agency answers. An unanswered offer lapses without an event, and the term ends without a renewal.
    """

    event_type: ClassVar[str] = "muster.billing.RenewalDecided.v1"

    renewal_id: RenewalId
    decision: Open[RenewalDecision] = Field(description="The answer.", examples=["accepted", "deferred"])
    price: DollarAmount = Field(description="Price of the next term.")
    next_starts_at: Instant = Field(
        description="Inclusive start of the next term, UTC.",
        examples=["2026-08-06T00:00:00Z"],
    )
    next_ends_at: Instant = Field(
        description="Exclusive end of the next term, UTC.",
        examples=["2027-08-06T00:00:00Z"],
    )
    decided_at: Instant = Field(description="Time of the decision, UTC.", examples=["2026-07-01T12:00:00Z"])


@event
class TermEnded(_TermFact):
    """A term ended: it was completed, or cut short by a withdrawal.

    Emitted once per term; `time` is the instant of its end. If the offer of the next term came late, this event waits
    for the answer, or for its deadline.
    """

    event_type: ClassVar[str] = "muster.billing.TermEnded.v1"

    enrollment_id: str | None = Field(
        default=None,
        description="The enrollment that the term belongs to. null: the event is older than this field.",
        examples=["enr_01987b3e0000700080000000000000aa", None],
    )
    reason: Open[TermEndReason] = Field(description="The reason.", examples=["completed", "superseded"])
    renewed: bool = Field(
        description="Whether an accepted renewal follows, without a break unless it was accepted after this end.",
        examples=[True, False],
    )
    ended_at: Instant = Field(description="End of the term, UTC.", examples=["2026-08-06T00:00:00Z"])


@event
class BillingAuditSealed(SealedAudit):
    """Rows of billing's audit trail were sealed: from now on, any change to them is noticed.

    Emitted about a minute after a command, once for each agency with new rows.
    """

    event_type: ClassVar[str] = "muster.billing.AuditSealed.v1"
    topic: ClassVar[str] = "muster.billing.audit"

"""The rules of terms, invoices and renewals. Instants are UTC; a term is half-open, [starts_at, ends_at)."""

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum

from muster_billing.errors import InvoiceNotPayable, RenewalClosed
from muster_runtime.errors import InvalidInput

# An invoice falls due this long after it is issued: the Prompt Payment Act's period, 31 U.S.C. 3903(a)(1)(B).
PAYMENT_PERIOD = timedelta(days=30)

# When an unpaid invoice is told of, counted from its due instant: levels 1, 2 and 3. Nothing is ever cut off.
OVERDUE_AFTER = (timedelta(days=0), timedelta(days=30), timedelta(days=60))

# A further term is offered this long before the present one ends.
RENEWAL_NOTICE = timedelta(days=60)


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in whole minor units (cents for USD) of an ISO 4217 currency."""

    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class Tariff:
    """The programme's prices of a term of one year."""

    first_term: Money
    renewal: Money


@dataclass(frozen=True, slots=True)
class PeriodOfPerformance:
    """The days, both inclusive, on which a term's service is rendered."""

    first_day: date
    last_day: date


def fiscal_year(instant: datetime) -> int:
    """The federal fiscal year of an instant: it begins on 1 October of the year before (31 U.S.C. 1102)."""
    return instant.year + (instant.month >= 10)


def period_of_performance(starts_at: datetime, ends_at: datetime) -> PeriodOfPerformance:
    """The days of a term. It may cross into the next fiscal year as long as it is no longer than one year and
    is paid from the year in which it begins (41 U.S.C. 3902)."""
    return PeriodOfPerformance(starts_at.date(), (ends_at - timedelta(microseconds=1)).date())


def one_year_after(instant: datetime) -> datetime:
    """The same instant a calendar year later; 29 February becomes 28 February."""
    if (instant.month, instant.day) == (2, 29):
        instant = instant.replace(day=28)
    return instant.replace(year=instant.year + 1)


class TermState(StrEnum):
    """A cancelled term never started: its agency withdrew before."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    ENDED = "ended"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Term:
    """A term of an enrolment, the first of which has number 1.

    Raises InvalidInput when it does not end after it starts.
    """

    id: str
    agency_id: str
    enrollment_id: str
    number: int
    starts_at: datetime
    ends_at: datetime
    price: Money
    state: TermState = TermState.SCHEDULED
    ended_at: datetime | None = None
    end_reason: str | None = None

    def __post_init__(self) -> None:
        if self.ends_at <= self.starts_at:
            raise InvalidInput("ends_at", self.ends_at.isoformat(), f"a term ends after it starts, {self.starts_at}")

    @property
    def fiscal_year(self) -> int:
        """The fiscal year that pays for the term: the one in which it begins."""
        return fiscal_year(self.starts_at)

    @property
    def offer_at(self) -> datetime:
        """When the next term is offered; at once if this one is shorter than the notice."""
        return max(self.starts_at, self.ends_at - RENEWAL_NOTICE)

    def start(self) -> "Term":
        return replace(self, state=TermState.RUNNING)

    def end(self, reason: str, ended_at: datetime) -> "Term":
        return replace(self, state=TermState.ENDED, end_reason=reason, ended_at=ended_at)

    def cancel(self) -> "Term":
        return replace(self, state=TermState.CANCELLED)

    def followed_by(self, term_id: str, renewal: "Renewal") -> "Term":
        """The next term of the enrolment, as the renewal offered it."""
        return Term(
            id=term_id,
            agency_id=self.agency_id,
            enrollment_id=self.enrollment_id,
            number=self.number + 1,
            starts_at=renewal.next_starts_at,
            ends_at=renewal.next_ends_at,
            price=renewal.price,
        )


class InvoiceState(StrEnum):
    """A draft is of a term that has not started: it has no number, and nothing is owed on it."""

    DRAFT = "draft"
    ISSUED = "issued"
    PAID = "paid"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class Issuance:
    """When an invoice was issued; `ordinal` counts its agency's invoices of one fiscal year from 1, without a gap."""

    ordinal: int
    issued_at: datetime
    due_at: datetime

    @classmethod
    def at(cls, issued_at: datetime, ordinal: int) -> "Issuance":
        """Issued now: the time to pay counts from here, however late the term began."""
        return cls(ordinal, issued_at, issued_at + PAYMENT_PERIOD)


@dataclass(frozen=True, slots=True)
class OverdueNotice:
    """At `tell_at` it is told that an invoice is unpaid `days_overdue` days after its due instant."""

    level: int
    days_overdue: int
    due_at: datetime
    tell_at: datetime


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
        """The overdue notice to come, if it stays unpaid; None when there is none."""
        if self.state is not InvoiceState.ISSUED or not self.issuance or self.overdue_level == len(OVERDUE_AFTER):
            return None
        after = OVERDUE_AFTER[self.overdue_level]
        due_at = self.issuance.due_at
        return OverdueNotice(self.overdue_level + 1, after.days, due_at, due_at + after)

    def issue(self, issuance: Issuance) -> "Invoice":
        return replace(self, state=InvoiceState.ISSUED, issuance=issuance)

    def pay(self, amount: Money, paid_at: datetime) -> "Invoice":
        """The invoice, paid in full.

        Raises InvoiceNotPayable unless it is issued and unpaid, InvalidInput unless the amount is exactly its own.
        """
        if self.state is not InvoiceState.ISSUED:
            raise InvoiceNotPayable(f"invoice {self.id} is {self.state}; only an issued one can be paid")
        if amount.currency != self.amount.currency:
            raise InvalidInput("amount.currency", amount.currency, f"the invoice is in {self.amount.currency}")
        if amount.amount_minor != self.amount.amount_minor:
            raise InvalidInput(
                "amount.amount_minor",
                amount.amount_minor,
                f"a payment is the exact amount of the invoice, {self.amount.amount_minor}",
            )
        return replace(self, state=InvoiceState.PAID, paid_at=paid_at)

    def void(self, reason: str, voided_at: datetime) -> "Invoice":
        return replace(self, state=InvoiceState.VOID, void_reason=reason, voided_at=voided_at)

    def escalate(self, notice: OverdueNotice) -> "Invoice":
        return replace(self, overdue_level=notice.level)


def invoice_number(agency_id: str, fiscal_year: int, ordinal: int) -> str:
    """Such as NASA-2025-01: the agency, the fiscal year that pays, and the count within both."""
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


class RenewalState(StrEnum):
    """A lapsed offer got no answer by the end of its term; a withdrawn one belongs to an agency that left."""

    OFFERED = "offered"
    ACCEPTED = "accepted"
    DECLINED = "declined"
    LAPSED = "lapsed"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Renewal:
    """The offer of a further term. Nothing renews by itself."""

    id: str
    agency_id: str
    term_id: str
    price: Money
    next_starts_at: datetime
    next_ends_at: datetime
    offered_at: datetime
    state: RenewalState = RenewalState.OFFERED
    decided_at: datetime | None = None

    @classmethod
    def offer(cls, renewal_id: str, term: Term, price: Money, offered_at: datetime) -> "Renewal":
        """A year more, without a break after the term."""
        return cls(
            id=renewal_id,
            agency_id=term.agency_id,
            term_id=term.id,
            price=price,
            next_starts_at=term.ends_at,
            next_ends_at=one_year_after(term.ends_at),
            offered_at=offered_at,
        )

    @property
    def decide_by(self) -> datetime:
        """An answer is taken before this instant, the end of the present term."""
        return self.next_starts_at

    def decide(self, decision: RenewalState, decided_at: datetime) -> "Renewal":
        """The renewal, accepted or declined.

        Raises RenewalClosed when it was decided otherwise, is no longer open, or its time is over.
        """
        if self.state is decision:
            return self
        if self.state is not RenewalState.OFFERED:
            raise RenewalClosed(f"renewal {self.id} is {self.state} already")
        if decided_at >= self.decide_by:
            raise RenewalClosed(f"renewal {self.id} had to be decided before {self.decide_by.isoformat()}")
        return replace(self, state=decision, decided_at=decided_at)

    def close(self, state: RenewalState) -> "Renewal":
        return replace(self, state=state)

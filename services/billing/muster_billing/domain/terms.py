"""Terms and their renewals. Instants are UTC; a term is half-open, [starts_at, ends_at)."""

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from muster_billing.domain.calendar import civil_day, fiscal_year
from muster_billing.domain.money import Money
from muster_billing.errors import RenewalClosed
from muster_contracts.calendar import one_year_after
from muster_runtime.errors import InvalidInput, rfc3339

# The next term is offered this long before the current one ends.
RENEWAL_NOTICE = timedelta(days=60)

# An agency has at least this long to decide, from when the offer is actually made.
DECISION_PERIOD = timedelta(days=30)


class TermState(StrEnum):
    """The state of a term. A canceled term never started: its agency withdrew before."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    ENDED = "ended"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Term:
    """A term of an enrollment; the first has number 1. `first_day` is the civil day on which it starts.

    Raises InvalidInput if it does not end after it starts.
    """

    id: str
    agency_id: str
    enrollment_id: str
    number: int
    starts_at: datetime
    ends_at: datetime
    first_day: date
    price: Money
    state: TermState = TermState.SCHEDULED
    ended_at: datetime | None = None
    end_reason: str | None = None

    def __post_init__(self) -> None:
        if self.ends_at <= self.starts_at:
            raise InvalidInput("ends_at", self.ends_at, f"must be after starts_at, {rfc3339(self.starts_at)}")

    @property
    def fiscal_year(self) -> int:
        """The fiscal year that pays for the term: the one in which it begins."""
        return fiscal_year(self.first_day)

    @property
    def last_day(self) -> date:
        """The last day of the period of performance, in which the term's service is provided.

        The period may cross into the next fiscal year if it is at most one year long and is paid from the year in which
        it begins (41 U.S.C. 3902). So it ends the day before its first day recurs, whatever the hour at which the term
        begins and ends.
        """
        return one_year_after(self.first_day) - timedelta(days=1)

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

    def followed_by(self, term_id: str, renewal: "Renewal", zone: ZoneInfo) -> "Term":
        """The next term of the enrollment, from its renewal. Without a break, its days continue this term's.

        Its first day is then counted from this term's first day, not taken from its start instant, which daylight
        saving time may have moved across midnight.
        """
        unbroken = renewal.next_starts_at == self.ends_at
        return Term(
            id=term_id,
            agency_id=self.agency_id,
            enrollment_id=self.enrollment_id,
            number=self.number + 1,
            starts_at=renewal.next_starts_at,
            ends_at=renewal.next_ends_at,
            first_day=one_year_after(self.first_day) if unbroken else civil_day(renewal.next_starts_at, zone),
            price=renewal.price,
        )


class RenewalState(StrEnum):
    """The state of a renewal.

    A lapsed offer got no answer in time; a withdrawn one belongs to an agency that withdrew.
    """

    OFFERED = "offered"
    ACCEPTED = "accepted"
    DECLINED = "declined"
    LAPSED = "lapsed"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Renewal:
    """The offer of the next term, which starts no earlier than it is accepted. Nothing renews automatically."""

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
        """An offer of another year, without a break after the term unless the answer comes later."""
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
        """The agency must answer before this instant: the end of the current term, or later if the offer was late."""
        return max(self.next_starts_at, self.offered_at + DECISION_PERIOD)

    def is_open(self, now: datetime) -> bool:
        """Whether the agency may still answer."""
        return self.state is RenewalState.OFFERED and now < self.decide_by

    def decide(self, decision: RenewalState, decided_at: datetime, *, held: bool = False) -> "Renewal":
        """The renewal, accepted or declined.

        If accepted after the current term's end, the next term starts at `decided_at`. While deadlines are `held`,
        because commits were lost, a decision may repeat one that was lost, so it is never too late, and counts as made
        by the deadline.

        Raises RenewalClosed if it was decided differently, is no longer open, or its deadline has passed.
        """
        if self.state is decision:
            return self
        if self.state is not RenewalState.OFFERED:
            raise RenewalClosed(f"renewal {self.id} is already {self.state}")
        if decided_at >= self.decide_by and not held:
            raise RenewalClosed(f"renewal {self.id} had to be decided before {rfc3339(self.decide_by)}")
        decided = replace(self, state=decision, decided_at=decided_at)
        starts_at = min(decided_at, self.decide_by)
        if decision is RenewalState.ACCEPTED and starts_at > self.next_starts_at:
            return replace(decided, next_starts_at=starts_at, next_ends_at=one_year_after(starts_at))
        return decided

    def close(self, state: RenewalState) -> "Renewal":
        return replace(self, state=state)

"""The facts about an agency: its entry in the register, its authorizations, its enrollment."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from muster_contracts.enrollment import SuspensionReason


class Branch(StrEnum):
    """The branch of government that an agency belongs to; the program is for the executive branch."""

    EXECUTIVE = "executive"
    LEGISLATIVE = "legislative"
    JUDICIAL = "judicial"


class State(StrEnum):
    """The state of an agency's enrollment. A draft is not submitted yet, and never stored."""

    DRAFT = "draft"
    SUBMITTED = "submitted"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    WITHDRAWN = "withdrawn"
    ENDED = "ended"


LIVE = frozenset({State.SUBMITTED, State.ACTIVE, State.SUSPENDED})


class Condition(StrEnum):
    """What a submitted enrollment needs to become active."""

    AUTHORIZATION = "authorization"
    DATA_USE_TERMS = "data_use_terms"


class ContactRole(StrEnum):
    """The role in which a person represents an agency."""

    ADMINISTRATOR = "administrator"
    SIGNER = "signer"


@dataclass(frozen=True, slots=True)
class Person:
    """A person's name and e-mail address: personal data."""

    name: str
    email: str


@dataclass(frozen=True, slots=True)
class Agency:
    """An agency in the register. `headcount` is None if it is unknown."""

    id: str
    name: str
    parent: str | None
    treasury_code: str | None
    domains: tuple[str, ...]
    headcount: int | None
    branch: Branch


@dataclass(frozen=True, slots=True)
class Authorization:
    """An authorization to use the product, in force within [valid_from, valid_until) until it is revoked."""

    authorization_id: str
    number: str
    valid_from: datetime
    valid_until: datetime
    recorded_at: datetime
    revoked_at: datetime | None = None

    @property
    def stops_at(self) -> datetime:
        """The instant from which it is no longer in force."""
        return min(self.valid_until, self.revoked_at or self.valid_until)

    def in_force(self, at: datetime) -> bool:
        """Whether it covers the instant."""
        return self.valid_from <= at < self.stops_at


@dataclass(frozen=True, slots=True)
class Acceptance:
    """An agency's acceptance of a version of the data-use terms."""

    acceptance_id: str
    terms_version: str
    accepted_at: datetime


@dataclass(frozen=True, slots=True)
class Term:
    """A term of participation, [starts_at, ends_at)."""

    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Closure:
    """How and when an enrollment ended."""

    closed_at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Enrollment:
    """An agency's `number`-th request to take part, and its state.

    `seats` is the agreed cap. `changed_at` is when it entered its state. `time_zone` is the agency's, from the IANA
    database; None for UTC. `continues` names the agencies whose used trials count as its own.
    """

    enrollment_id: str
    agency_id: str
    number: int
    state: State
    seats: int
    requested_start: datetime
    contact_ref: str
    submitted_at: datetime
    changed_at: datetime
    term: Term | None = None
    suspension_reason: SuspensionReason | None = None
    closure: Closure | None = None
    version: int = 1
    time_zone: str | None = None
    continues: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything that decides an agency's state: its latest enrollment, its authorizations, its acceptances.

    `in_doubt` is whether commits may be lost, so that an authorization may be missing.
    """

    agency: Agency
    enrollment: Enrollment | None
    authorizations: tuple[Authorization, ...]
    acceptances: tuple[Acceptance, ...]
    in_doubt: bool = False

    @property
    def state(self) -> State:
        """The state of the agency's enrollment."""
        return self.enrollment.state if self.enrollment else State.DRAFT

    @property
    def live(self) -> Enrollment | None:
        """The enrollment, unless it has ended."""
        return self.enrollment if self.enrollment and self.enrollment.state in LIVE else None

    def authorized(self, at: datetime) -> bool:
        """Whether any authorization is in force."""
        return any(authorization.in_force(at) for authorization in self.authorizations)

    def lapsed(self, at: datetime) -> bool:
        """Whether no authorization is in force at an instant. One that is recorded then, or later, does not count."""
        return not any(each.recorded_at < at and each.in_force(at) for each in self.authorizations)

    def missing(self, at: datetime) -> tuple[Condition, ...]:
        """The conditions that are not met at an instant."""
        bound = any(acceptance.accepted_at <= at for acceptance in self.acceptances)
        met = {Condition.AUTHORIZATION: self.authorized(at), Condition.DATA_USE_TERMS: bound}
        return tuple(condition for condition, is_met in met.items() if not is_met)

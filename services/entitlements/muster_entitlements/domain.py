"""The rules of pools, windows and checks. No I/O, no clock: the time is an argument."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum

from muster_contracts.entitlements import AccessMode
from muster_entitlements.catalogue import Feature

TRIAL_NOTICE_DAYS = (14, 7, 1)


class PoolState(StrEnum):
    """What an agency's pool of seats is at an instant."""

    UNKNOWN = "unknown"
    NOT_STARTED = "not_started"
    OPEN = "open"
    SUSPENDED = "suspended"
    WITHDRAWN = "withdrawn"
    ENDED = "ended"


# Seats may be given out ahead of the start of the term, so that people are ready on the day.
ASSIGNABLE = frozenset({PoolState.OPEN, PoolState.NOT_STARTED})


class SeatState(StrEnum):
    """The life of a seat. Reserved and invited, it is kept for a person who does not hold it yet."""

    RESERVED = "reserved"
    INVITED = "invited"
    ASSIGNED = "assigned"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


# An assigned seat may be used at once: its first use activates it.
USABLE = frozenset({SeatState.ASSIGNED, SeatState.ACTIVE})


class SeatAction(StrEnum):
    """What may be done with a seat, in the words of a refusal: a suspended seat cannot be activated."""

    INVITE = "invited to"
    ACTIVATE = "activated"
    SUSPEND = "suspended"
    REINSTATE = "reinstated"
    TRANSFER = "transferred"
    REVOKE = "revoked"


# The seat's states by action, each with what it becomes. The same state again: the action changes nothing,
# but for a further invitation and a transfer.
_NEXT: dict[SeatAction, dict[SeatState, SeatState]] = {
    SeatAction.INVITE: {SeatState.RESERVED: SeatState.INVITED, SeatState.INVITED: SeatState.INVITED},
    SeatAction.ACTIVATE: {
        SeatState.INVITED: SeatState.ACTIVE,
        SeatState.ASSIGNED: SeatState.ACTIVE,
        SeatState.ACTIVE: SeatState.ACTIVE,
    },
    SeatAction.SUSPEND: {
        SeatState.ASSIGNED: SeatState.SUSPENDED,
        SeatState.ACTIVE: SeatState.SUSPENDED,
        SeatState.SUSPENDED: SeatState.SUSPENDED,
    },
    SeatAction.REINSTATE: {
        SeatState.SUSPENDED: SeatState.ACTIVE,
        SeatState.ASSIGNED: SeatState.ASSIGNED,
        SeatState.ACTIVE: SeatState.ACTIVE,
    },
    SeatAction.TRANSFER: {SeatState.ASSIGNED: SeatState.ASSIGNED, SeatState.ACTIVE: SeatState.ASSIGNED},
    SeatAction.REVOKE: dict.fromkeys(SeatState, SeatState.REVOKED),
}


@dataclass(frozen=True, slots=True)
class Seat:
    """A seat and whose it is; `used` says whether that person has ever activated it."""

    agency_id: str
    seat_id: str
    subject_ref: str
    state: SeatState
    used: bool

    def after(self, action: SeatAction) -> SeatState | None:
        """The state to which an action brings the seat; None where its state does not allow the action."""
        state = _NEXT[action].get(self.state)
        if action is SeatAction.REINSTATE and self.state is SeatState.SUSPENDED and not self.used:
            return SeatState.ASSIGNED
        return state


@dataclass(frozen=True, slots=True)
class SeatPolicy:
    """What an agency has laid down for its seats; without `idle_days` none is ever idle."""

    idle_days: int | None
    warning_days: int
    invitation_days: int


DEFAULT_POLICY = SeatPolicy(idle_days=None, warning_days=14, invitation_days=14)


@dataclass(frozen=True, slots=True)
class Pool:
    """The seats of an agency's enrolment, for the term [starts_at, ends_at).

    `ended` is what billing says: the term was completed and no other follows on.
    """

    agency_id: str
    enrollment_id: str
    starts_at: datetime
    ends_at: datetime
    suspended: bool
    withdrawn_at: datetime | None
    ended: bool
    cap: int
    in_use: int
    limit_met: bool
    revision: int

    @property
    def free(self) -> int:
        """Seats that nobody holds."""
        return self.cap - self.in_use

    def state(self, now: datetime) -> PoolState:
        """The state at an instant. A withdrawal outweighs the end of the term, and that a suspension."""
        if self.withdrawn_at is not None:
            return PoolState.WITHDRAWN
        if self.ended or now >= self.ends_at:
            return PoolState.ENDED
        if self.suspended:
            return PoolState.SUSPENDED
        return PoolState.NOT_STARTED if now < self.starts_at else PoolState.OPEN


class OperationState(StrEnum):
    """How far the work on a file is."""

    RECEIVING = "receiving"
    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"


class OnLimit(StrEnum):
    """What an import does at the first person for whom there is no seat: stop there, or go on and refuse them."""

    STOP = "stop"
    FILL = "fill"


@dataclass(frozen=True, slots=True)
class Window:
    """A feature is open in `mode` within [starts_at, ends_at), and in `mode_after` from then on."""

    window_id: str
    agency_id: str
    enrollment_id: str
    feature: str
    trial: bool
    mode: AccessMode
    starts_at: datetime
    ends_at: datetime
    mode_after: AccessMode
    monthly_quota_after: int | None

    @classmethod
    def open(cls, window_id: str, feature: Feature, pool: Pool) -> "Window":
        """The window of a feature that a pool's term opens."""
        return cls(
            window_id=window_id,
            agency_id=pool.agency_id,
            enrollment_id=pool.enrollment_id,
            feature=feature.key,
            trial=feature.trial is not None,
            mode=feature.mode,
            starts_at=pool.starts_at,
            ends_at=pool.starts_at + feature.trial if feature.trial else pool.ends_at,
            mode_after=feature.mode_after,
            monthly_quota_after=feature.monthly_quota_after,
        )

    def access(self, now: datetime) -> AccessMode:
        """How the feature may be used at an instant."""
        if now < self.starts_at:
            return AccessMode.NONE
        return self.mode if now < self.ends_at else self.mode_after

    def notices(self) -> dict[int, datetime]:
        """When to say that the window ends soon, by the days that are then left."""
        return {days: self.ends_at - timedelta(days=days) for days in TRIAL_NOTICE_DAYS}


class Verdict(StrEnum):
    """Whether a subject may use what was asked for."""

    ALLOWED = "allowed"
    REFUSED = "refused"


class Reason(StrEnum):
    """Why: the first of the rules, in this order, that decides."""

    UNKNOWN = "unknown"
    WITHDRAWN = "withdrawn"
    ENDED = "ended"
    SUSPENDED = "suspended"
    NOT_STARTED = "not_started"
    NO_SEAT = "no_seat"
    SEAT_RESERVED = "seat_reserved"
    SEAT_INVITED = "seat_invited"
    SEAT_SUSPENDED = "seat_suspended"
    SEAT_ASSIGNED = "seat_assigned"
    SEAT_ACTIVE = "seat_active"
    WINDOW_OPEN = "window_open"
    QUOTA = "quota"
    NO_WINDOW = "no_window"
    WINDOW_CLOSED = "window_closed"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a check. It holds until `valid_until`, unless the revision grows before."""

    verdict: Verdict
    reason: Reason
    valid_until: datetime | None
    revision: int
    monthly_quota: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What is known to answer a check with. Without a feature it asks for the seat alone."""

    pool: Pool | None
    seat: SeatState | None
    feature: str | None
    window: Window | None
    used_on: date | None = None
    """The last day on which the seat was used; None where that is not known to be after its activation."""


def check(question: Question, now: datetime) -> Answer:
    """Answer a check at an instant."""
    pool, window = question.pool, question.window
    if pool is None:
        return Answer(Verdict.REFUSED, Reason.UNKNOWN, None, 0)
    answer = Answer(Verdict.REFUSED, Reason.NO_SEAT, _next_change(pool, window, now), pool.revision)
    state = pool.state(now)
    if state is not PoolState.OPEN:
        return replace(answer, reason=Reason(state.value))
    if question.seat is None or question.seat is SeatState.REVOKED:
        return answer
    if question.seat not in USABLE:
        return replace(answer, reason=Reason(f"seat_{question.seat}"))
    if question.feature is None:
        return replace(answer, verdict=Verdict.ALLOWED, reason=Reason(f"seat_{question.seat}"))
    if window is None:
        return replace(answer, reason=Reason.NO_WINDOW)
    return _through_window(answer, window, now)


def _through_window(answer: Answer, window: Window, now: datetime) -> Answer:
    match window.access(now):
        case AccessMode.UNLIMITED:
            return replace(answer, verdict=Verdict.ALLOWED, reason=Reason.WINDOW_OPEN)
        case AccessMode.QUOTA:
            return replace(
                answer, verdict=Verdict.ALLOWED, reason=Reason.QUOTA, monthly_quota=window.monthly_quota_after
            )
        case AccessMode.NONE:
            return replace(answer, reason=Reason.WINDOW_CLOSED)


def _next_change(pool: Pool, window: Window | None, now: datetime) -> datetime | None:
    """The next instant at which time alone may change an answer."""
    if pool.withdrawn_at is not None or pool.ended:
        return None
    return _first_after(now, [pool.starts_at, pool.ends_at, *((window.starts_at, window.ends_at) if window else ())])


def _first_after(now: datetime, instants: Iterable[datetime]) -> datetime | None:
    return min((instant for instant in instants if instant > now), default=None)

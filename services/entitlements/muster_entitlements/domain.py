"""The rules of pools, seats and windows. No I/O, no clock: the time is an argument."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from muster_contracts.entitlements import AccessMode
from muster_entitlements.catalog import Feature

TRIAL_NOTICE_DAYS = (14, 7, 1)


class PoolState(StrEnum):
    """What an agency's pool of seats is at an instant."""

    UNKNOWN = "unknown"
    NOT_STARTED = "not_started"
    OPEN = "open"
    SUSPENDED = "suspended"
    WITHDRAWN = "withdrawn"
    ENDED = "ended"


# Seats can be assigned before the term starts, so that people are ready on the first day.
ASSIGNABLE = frozenset({PoolState.OPEN, PoolState.NOT_STARTED})


class SeatState(StrEnum):
    """The state of a seat. A reserved or invited seat is kept for a person who does not hold it yet."""

    RESERVED = "reserved"
    INVITED = "invited"
    ASSIGNED = "assigned"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


# An assigned seat may be used at once: its first use activates it.
USABLE = frozenset({SeatState.ASSIGNED, SeatState.ACTIVE})


class SeatAction(StrEnum):
    """An action on a seat, in the words of its error: a suspended seat cannot be activated."""

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
    """An agency's rules for its seats; without `idle_days` no seat is ever idle."""

    idle_days: int | None
    warning_days: int
    invitation_days: int


DEFAULT_POLICY = SeatPolicy(idle_days=None, warning_days=14, invitation_days=14)


@dataclass(frozen=True, slots=True)
class Pool:
    """The seats of an agency's enrollment, for the term [starts_at, ends_at).

    `ended` is what billing says: the term was completed and no other follows on. `revoking` counts the seats of
    earlier generations that are still to be revoked: nobody holds them, and they do not count toward the cap.
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
    generation: int
    revoking: int

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
    """The state of the processing of a file."""

    RECEIVING = "receiving"
    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"


class OnLimit(StrEnum):
    """What an import does when no seat is left: stop, or refuse the person and continue."""

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
    def open(cls, window_id: str, feature: Feature, pool: Pool, used: timedelta = timedelta()) -> "Window":
        """The window of a feature that a pool's term opens.

        Of a trial, what earlier enrollments have `used` of it is over: a second enrollment brings no second trial.
        """
        left = max(feature.trial - used, timedelta()) if feature.trial else None
        return cls(
            window_id=window_id,
            agency_id=pool.agency_id,
            enrollment_id=pool.enrollment_id,
            feature=feature.key,
            trial=feature.trial is not None,
            mode=feature.mode,
            starts_at=pool.starts_at,
            ends_at=pool.starts_at + left if left is not None else pool.ends_at,
            mode_after=feature.mode_after,
            monthly_quota_after=feature.monthly_quota_after,
        )

    def access(self, now: datetime) -> AccessMode:
        """How the feature may be used at an instant."""
        if now < self.starts_at:
            return AccessMode.NONE
        return self.mode if now < self.ends_at else self.mode_after

    def notices(self) -> dict[int, datetime]:
        """When to say that the window ends soon, by the days that are then left; never before it has opened."""
        instants = {days: self.ends_at - timedelta(days=days) for days in TRIAL_NOTICE_DAYS}
        return {days: instant for days, instant in instants.items() if instant >= self.starts_at}

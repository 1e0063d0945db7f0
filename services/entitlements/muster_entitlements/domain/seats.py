"""Seats: their states, the actions that change them, and an agency's policy for them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class SeatState(StrEnum):
    """The state of a seat. A reserved or invited seat is kept for a person who does not hold it yet."""

    RESERVED = "reserved"
    INVITED = "invited"
    ASSIGNED = "assigned"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


# An assigned seat can be used immediately: the first use activates it.
USABLE = frozenset({SeatState.ASSIGNED, SeatState.ACTIVE})


class SeatAction(StrEnum):
    """An action on a seat, in the words of its error: a suspended seat cannot be activated."""

    INVITE = "invited to"
    ACTIVATE = "activated"
    SUSPEND = "suspended"
    REINSTATE = "reinstated"
    TRANSFER = "transferred"
    REVOKE = "revoked"


# By action: the states that allow it, each with the next state. If the state stays the same, the action changes
# nothing, except for another invitation or a transfer.
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
    """A seat and its person; `used` is whether that person has ever activated it."""

    agency_id: str
    seat_id: str
    subject_ref: str
    state: SeatState
    used: bool

    def after(self, action: SeatAction) -> SeatState | None:
        """The state after an action; None if the seat's state does not allow the action."""
        state = _NEXT[action].get(self.state)
        if action is SeatAction.REINSTATE and self.state is SeatState.SUSPENDED and not self.used:
            return SeatState.ASSIGNED
        return state


@dataclass(frozen=True, slots=True)
class HeldSeat:
    """What a check needs to know about a seat: its state, and when its trial began; None if it has not."""

    state: SeatState
    began_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SeatPolicy:
    """An agency's rules for its seats; without `idle_days` no seat is ever idle."""

    idle_days: int | None
    warning_days: int
    invitation_days: int


DEFAULT_POLICY = SeatPolicy(idle_days=None, warning_days=14, invitation_days=14)

"""What can be asked of entitlements."""

from dataclasses import dataclass

from muster_entitlements.domain import SeatPolicy, SeatState
from muster_entitlements.people import Person


@dataclass(frozen=True, slots=True)
class AssignSeat:
    """Give a person a seat; or keep it for them, reserved or invited."""

    agency_id: str
    person: Person
    state: SeatState = SeatState.ASSIGNED


@dataclass(frozen=True, slots=True)
class ActivateSeat:
    """Note that the person has begun to use the seat."""

    agency_id: str
    seat_id: str


@dataclass(frozen=True, slots=True)
class RevokeSeat:
    """Take a seat back. The reason is for the audit alone."""

    agency_id: str
    seat_id: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class InviteToSeat:
    """Invite the person to take a seat that is reserved for them; again, where an invitation is out."""

    agency_id: str
    seat_id: str


@dataclass(frozen=True, slots=True)
class SuspendSeat:
    """Let the person keep the seat without using it. The reason is public."""

    agency_id: str
    seat_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReinstateSeat:
    """Let a suspended seat be used again."""

    agency_id: str
    seat_id: str


@dataclass(frozen=True, slots=True)
class TransferSeat:
    """Give a seat that is held to another person."""

    agency_id: str
    seat_id: str
    person: Person


@dataclass(frozen=True, slots=True)
class MarkUse:
    """Note that a person uses their seat today."""

    agency_id: str
    subject_ref: str


@dataclass(frozen=True, slots=True)
class ResizePool:
    """Agree on another number of seats."""

    agency_id: str
    cap: int


@dataclass(frozen=True, slots=True)
class SetSeatPolicy:
    """Lay down what holds for an agency's seats; `if_version` is the version that the caller has read."""

    agency_id: str
    policy: SeatPolicy
    if_version: int | None

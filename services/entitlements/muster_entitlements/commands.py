"""What can be asked of entitlements."""

from dataclasses import dataclass

from muster_entitlements.people import Person


@dataclass(frozen=True, slots=True)
class AssignSeat:
    """Give a person a seat."""

    agency_id: str
    person: Person


@dataclass(frozen=True, slots=True)
class AssignSeats:
    """Give each of many persons a seat, as far as the cap goes; one transaction's worth."""

    agency_id: str
    people: tuple[Person, ...]


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

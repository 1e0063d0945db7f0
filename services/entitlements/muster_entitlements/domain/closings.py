"""Closings: the revocation of all seats of an ended enrollment."""

from dataclasses import dataclass

from muster_contracts.entitlements import SeatRevocationReason


@dataclass(frozen=True, slots=True)
class Closing:
    """The revocation of a generation's seats, and its progress: `seat_id` is the last seat examined.

    The correlation, causation, and trace are those of the event that ended the enrollment.
    """

    agency_id: str
    generation: int
    enrollment_id: str
    reason: SeatRevocationReason
    seats: int
    seat_id: str
    correlation_id: str
    causation_id: str | None
    traceparent: str | None

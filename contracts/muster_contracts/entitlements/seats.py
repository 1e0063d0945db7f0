"""Events of seats: who holds one, and its state."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from muster_contracts.event import Event, event
from muster_contracts.types import Instant, Open, SubjectRef

SeatId = Annotated[str, Field(description="The seat.", examples=["seat_01987b3e0000700080000000000000ba"])]


class SeatRevocationReason(StrEnum):
    """Why a seat was revoked."""

    REQUESTED = "requested"
    AGENCY_WITHDRAWN = "agency_withdrawn"
    TERM_ENDED = "term_ended"
    INACTIVITY = "inactivity"


class SeatBatchKind(StrEnum):
    """The change that a seat file requests."""

    IMPORT = "import"
    SUSPENSION = "suspension"
    REVOCATION = "revocation"
    TRANSFER = "transfer"


class _SeatFact(Event):
    topic: ClassVar[str] = "muster.entitlements.seat"


class _SeatOfPerson(_SeatFact):
    seat_id: SeatId
    subject_ref: SubjectRef


@event
class SeatPoolResized(_SeatFact):
    """An agency's agreed seat cap changed.

    Emitted when the cap changes after the pool has opened.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatPoolResized.v1"

    previous_cap: int = Field(ge=0, description="The previous cap.", examples=[17973, 0])
    cap: int = Field(ge=0, description="The new cap; never below the number of seats in use.", examples=[20000, 0])
    in_use: int = Field(ge=0, description="Seats in use at that moment.", examples=[12045, 0])


@event
class SeatReserved(_SeatOfPerson):
    """A seat is reserved for a person who does not hold it yet.

    Emitted when a seat waits for a condition, such as a training.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatReserved.v1"

    reserved_until: Instant | None = Field(
        default=None,
        description="When the reservation expires, UTC; null for never.",
        examples=["2025-10-06T00:00:00Z", None],
    )


@event
class SeatInvited(_SeatOfPerson):
    """A person was invited to take their reserved seat.

    Emitted for each invitation; only a seat's latest invitation is valid.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatInvited.v1"

    expires_at: Instant = Field(description="When the invitation expires, UTC.", examples=["2025-08-20T00:00:00Z"])


@event
class SeatInvitationExpired(_SeatOfPerson):
    """An invitation expired; the seat stays reserved. The event's `time` is that exact instant.

    Emitted once per expired invitation.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatInvitationExpired.v1"


@event
class SeatAssigned(_SeatOfPerson):
    """A seat was assigned to a person.

    Emitted once per seat, when it is assigned.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatAssigned.v1"

    unit: str | None = Field(
        default=None,
        description="The part of the agency that the seat is for; null for none. The seat keeps it.",
        examples=["JPL", None],
    )


@event
class SeatActivated(_SeatOfPerson):
    """The person used the seat for the first time.

    Emitted at most once per person who holds the seat.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatActivated.v1"


@event
class SeatSuspended(_SeatOfPerson):
    """A seat was suspended: the person keeps it but cannot use it.

    Emitted when a single seat is suspended; for a suspended agency, only the agency's own event is emitted.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatSuspended.v1"

    reason: str = Field(description="The reason.", examples=["training_expired", ""])


@event
class SeatReinstated(_SeatOfPerson):
    """A suspended seat was reinstated: the person can use it again.

    Emitted once at the end of each suspension.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatReinstated.v1"


@event
class SeatIdleWarned(_SeatOfPerson):
    """A seat has been idle for as long as its agency's policy allows.

    Emitted once until the seat is used; if it stays idle, it is revoked.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatIdleWarned.v1"

    idle_days: int = Field(ge=1, description="Days without use.", examples=[60, 1])
    reclaim_at: Instant = Field(
        description="When the seat is revoked unless it is used, UTC.",
        examples=["2025-11-04T00:00:00Z"],
    )


@event
class SeatRevoked(_SeatOfPerson):
    """A seat was revoked; it is free for another person.

    Emitted at most once per seat.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatRevoked.v1"

    reason: Open[SeatRevocationReason] = Field(description="The reason.", examples=["requested", "inactivity"])


@event
class SeatTransferred(_SeatOfPerson):
    """A seat was transferred from one person to another within the agency.

    Emitted once per transfer; from then on, `subject_ref` holds the seat.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatTransferred.v1"

    from_subject_ref: SubjectRef = Field(
        description="Pseudonymous reference to the previous holder.",
        examples=["sub_01987b3e0000700080000000000000bc"],
    )


@event
class SeatBatchCompleted(_SeatFact):
    """A seat file was processed.

    Emitted once per file, after the events of its seats.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatBatchCompleted.v1"

    batch_id: str = Field(
        description="The operation that processed the file.", examples=["bat_01987b3e0000700080000000000000bd"]
    )
    rows: int = Field(ge=0, description="Rows read.", examples=[10000, 0])
    assigned: int = Field(ge=0, description="Rows that assigned a seat.", examples=[9950, 0])
    already_held: int = Field(ge=0, description="Rows without a change.", examples=[20, 0])
    refused: int = Field(ge=0, description="Rows refused.", examples=[30, 0])
    kind: Open[SeatBatchKind] = Field(
        default=SeatBatchKind.IMPORT,
        description="The change that the file requested.",
        examples=["import", "reinstatement"],
    )
    changed: int = Field(
        default=0, ge=0, description="Rows that suspended, revoked, or transferred a seat.", examples=[0]
    )


@event
class SeatLimitReached(_SeatFact):
    """Seats were refused because all agreed seats are in use.

    Emitted when a request is refused at the cap, and then not again until a seat becomes free.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatLimitReached.v1"

    cap: int = Field(ge=0, description="The agreed seat cap.", examples=[17973, 0])
    in_use: int = Field(ge=0, description="Seats in use when the limit was reached.", examples=[17973, 0])
    refused: int = Field(ge=1, description="Rejected seat requests.", examples=[27, 1])

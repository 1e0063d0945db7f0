"""Events of seats: who holds one, and what becomes of it."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from muster_contracts.event import Event, event
from muster_contracts.types import Instant, Open, SubjectRef

SeatId = Annotated[str, Field(description="The seat.", examples=["seat_01987b3e0000700080000000000000ba"])]


class SeatRevocationReason(StrEnum):
    """Why a seat was taken back."""

    REQUESTED = "requested"
    AGENCY_WITHDRAWN = "agency_withdrawn"
    TERM_ENDED = "term_ended"
    INACTIVITY = "inactivity"


class SeatBatchKind(StrEnum):
    """What a file asks for the people that it lists."""

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
    """An agency's agreed cap of seats changed.

    Emitted when the cap changes after the pool was opened.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatPoolResized.v1"

    previous_cap: int = Field(ge=0, description="Seats agreed before.", examples=[17973, 0])
    cap: int = Field(ge=0, description="Seats agreed now; never fewer than are in use.", examples=[20000, 0])
    in_use: int = Field(ge=0, description="Seats held at that moment.", examples=[12045, 0])


@event
class SeatReserved(_SeatOfPerson):
    """A seat is kept for a person who does not hold it yet.

    Emitted when a seat waits for a condition, such as a training.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatReserved.v1"

    reserved_until: Instant | None = Field(
        default=None,
        description="The instant, UTC, at which the reservation ends by itself; null for none.",
        examples=["2025-10-06T00:00:00Z", None],
    )


@event
class SeatInvited(_SeatOfPerson):
    """A person was invited to take the seat that is reserved for them.

    Emitted for each invitation; the latest one of a seat holds.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatInvited.v1"

    expires_at: Instant = Field(
        description="The instant, UTC, from which the invitation is void.", examples=["2025-08-20T00:00:00Z"]
    )


@event
class SeatInvitationExpired(_SeatOfPerson):
    """An invitation was not taken up in time; the seat stays reserved. `time` of the event is that very instant.

    Emitted once for each invitation that expires.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatInvitationExpired.v1"


@event
class SeatAssigned(_SeatOfPerson):
    """A person holds a seat.

    Emitted once for each seat, when it is assigned.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatAssigned.v1"


@event
class SeatActivated(_SeatOfPerson):
    """The person has used the seat for the first time.

    Emitted at most once for each person who holds it.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatActivated.v1"


@event
class SeatSuspended(_SeatOfPerson):
    """The person keeps the seat but may not use it for now.

    Emitted when one seat is suspended; an agency's suspension is an event of the agency alone.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatSuspended.v1"

    reason: str = Field(description="Why.", examples=["training_expired", ""])


@event
class SeatReinstated(_SeatOfPerson):
    """The person may use a suspended seat again.

    Emitted once for each end of a seat's suspension.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatReinstated.v1"


@event
class SeatIdleWarned(_SeatOfPerson):
    """A seat has not been used for as long as its agency allows.

    Emitted once, until the seat is used; unless it is, the seat is revoked.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatIdleWarned.v1"

    idle_days: int = Field(ge=1, description="Days without use.", examples=[60, 1])
    reclaim_at: Instant = Field(
        description="The instant, UTC, at which the seat is revoked unless it is used.",
        examples=["2025-11-04T00:00:00Z"],
    )


@event
class SeatRevoked(_SeatOfPerson):
    """The person no longer holds the seat; it is free for another.

    Emitted at most once for each seat.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatRevoked.v1"

    reason: Open[SeatRevocationReason] = Field(
        description="Why it was taken back.", examples=["requested", "inactivity"]
    )


@event
class SeatTransferred(_SeatOfPerson):
    """A seat passed from one person to another within the agency.

    Emitted once for each transfer; `subject_ref` holds the seat from then on.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatTransferred.v1"

    from_subject_ref: SubjectRef = Field(
        description="Pseudonymous reference to the person who held it before.",
        examples=["sub_01987b3e0000700080000000000000bc"],
    )


@event
class SeatBatchCompleted(_SeatFact):
    """A file of seats was worked through.

    Emitted once for each file, after the events of its seats.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatBatchCompleted.v1"

    batch_id: str = Field(description="The work on the file.", examples=["bat_01987b3e0000700080000000000000bd"])
    rows: int = Field(ge=0, description="Rows read.", examples=[10000, 0])
    assigned: int = Field(ge=0, description="Rows that made a seat.", examples=[9950, 0])
    already_held: int = Field(ge=0, description="Rows that changed nothing: all was so before.", examples=[20, 0])
    refused: int = Field(ge=0, description="Rows refused.", examples=[30, 0])
    kind: Open[SeatBatchKind] = Field(
        default=SeatBatchKind.IMPORT, description="What the file asked for.", examples=["import", "reinstatement"]
    )
    changed: int = Field(
        default=0, ge=0, description="Rows that suspended, revoked or transferred a seat.", examples=[0]
    )


@event
class SeatLimitReached(_SeatFact):
    """Seats were refused because every seat of the agreed cap is in use.

    Emitted when a request is refused at the cap, and then not again until a seat becomes free.
    """

    event_type: ClassVar[str] = "muster.entitlements.SeatLimitReached.v1"

    cap: int = Field(ge=0, description="Seats agreed.", examples=[17973, 0])
    in_use: int = Field(ge=0, description="Seats held when the limit was met.", examples=[17973, 0])
    refused: int = Field(ge=1, description="Seats asked for in vain.", examples=[27, 1])

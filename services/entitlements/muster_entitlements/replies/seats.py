"""The replies of the routes that search seats and look back."""

from pydantic import BaseModel, Field

from muster_contracts import Instant
from muster_entitlements.domain.seats import SeatState


class SeatCountsReply(BaseModel):
    """The number of an agency's seats in each state."""

    reserved: int
    invited: int
    assigned: int
    active: int
    suspended: int
    revoked: int


class SeatVersionReply(BaseModel):
    """A seat's state within [recorded_from, recorded_until)."""

    seat_id: str
    subject_ref: str = Field(description="The person who held it, or for whom it was kept.")
    state: SeatState
    reason: str | None = Field(description="Why it was suspended or revoked: a public keyword.")
    unit: str | None = Field(description="The part of the agency that the seat is for.")
    recorded_from: Instant
    recorded_until: Instant | None = Field(description="null: still current.")


class ErasureReply(BaseModel):
    """The person whose erasure was published."""

    agency_id: str
    subject_ref: str

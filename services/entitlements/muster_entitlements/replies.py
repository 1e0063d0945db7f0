"""What the API answers."""

from enum import StrEnum

from pydantic import BaseModel, Field

from muster_contracts import Instant
from muster_contracts.entitlements import AccessMode
from muster_entitlements.domain import PoolState, Reason, SeatState, Verdict


class SeatReply(BaseModel):
    """A seat. The person's address and name are there as long as the seat is held."""

    seat_id: str
    subject_ref: str
    state: SeatState
    assigned_at: Instant
    activated_at: Instant | None = None
    revoked_at: Instant | None = None
    email: str | None = None
    name: str | None = None


class SeatStateReply(BaseModel):
    """What a seat has come to by a command."""

    seat_id: str
    subject_ref: str
    state: SeatState


class PoolReply(BaseModel):
    """An agency's pool of seats, for the term [starts_at, ends_at)."""

    agency_id: str
    enrollment_id: str
    state: PoolState
    cap: int
    in_use: int
    starts_at: Instant
    ends_at: Instant
    revision: int = Field(description="Grows with every change of the agency's entitlements.")


class WindowReply(BaseModel):
    """A feature's window, [starts_at, ends_at)."""

    window_id: str
    feature: str
    trial: bool
    mode: AccessMode
    starts_at: Instant
    ends_at: Instant
    mode_after: AccessMode
    monthly_quota_after: int | None


class CheckReply(BaseModel):
    """Whether a subject may use what was asked for, and until when that holds by itself."""

    verdict: Verdict
    reason: Reason
    valid_until: Instant | None = Field(description="Null: until the revision grows.")
    revision: int
    monthly_quota: int | None = Field(default=None, description="Uses a month, where the reason is the quota.")


class Outcome(StrEnum):
    """What became of a request for a seat."""

    ASSIGNED = "assigned"
    ALREADY_HELD = "already_held"
    REFUSED = "refused"


class RowResult(BaseModel):
    """What became of a row of a seat file."""

    line: int = Field(description="The line on which the row begins; the header's is 1.")
    subject: str | None = Field(description="The subject reference; null where the address is not one.")
    outcome: Outcome
    reason: str | None = None


class ImportReply(BaseModel):
    """What became of a seat file."""

    rows: int
    assigned: int
    already_held: int
    refused: int
    results: list[RowResult]

    @classmethod
    def of(cls, results: list[RowResult]) -> "ImportReply":
        """The sums of some results."""
        outcomes = [result.outcome for result in results]
        return cls(
            rows=len(results),
            assigned=outcomes.count(Outcome.ASSIGNED),
            already_held=outcomes.count(Outcome.ALREADY_HELD),
            refused=outcomes.count(Outcome.REFUSED),
            results=results,
        )

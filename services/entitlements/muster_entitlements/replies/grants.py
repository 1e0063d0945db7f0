"""The replies of the grant routes."""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, Field

from muster_contracts import Instant
from muster_contracts.entitlements import AccessMode
from muster_entitlements.domain.grants import Grant


class GrantState(StrEnum):
    """The state of a grant at an instant."""

    SCHEDULED = "scheduled"
    ACTIVE = "active"
    ENDED = "ended"
    REVOKED = "revoked"


class GrantReply(BaseModel):
    """A feature that is granted to an agency or a person within [starts_at, ends_at)."""

    grant_id: str
    feature: str
    subject_ref: str | None = Field(description="null: every seat of the agency.")
    mode: AccessMode
    monthly_quota: int | None = Field(
        description="Uses per seat and calendar month, if the mode is a quota, which is always hard."
    )
    starts_at: Instant
    ends_at: Instant | None
    reason: str
    revoked_at: Instant | None
    state: GrantState = Field(
        description="By the grant's own start and end. While the agency's pool is not open, no grant has an effect."
    )

    @classmethod
    def of(cls, grant: Grant, now: datetime) -> "GrantReply":
        """The reply for a grant at an instant."""
        return cls(
            grant_id=grant.grant_id,
            feature=grant.feature,
            subject_ref=grant.subject_ref,
            mode=grant.mode,
            monthly_quota=grant.monthly_quota,
            starts_at=grant.starts_at,
            ends_at=grant.ends_at,
            reason=grant.reason,
            revoked_at=grant.revoked_at,
            state=_state(grant, now),
        )


def _state(grant: Grant, now: datetime) -> GrantState:
    if grant.revoked_at is not None:
        return GrantState.REVOKED
    if grant.holds(now):
        return GrantState.ACTIVE
    return GrantState.SCHEDULED if now < grant.starts_at else GrantState.ENDED

"""The reply that explains a check: everything that decides it, each part with the events behind it."""

from dataclasses import asdict
from datetime import datetime

from pydantic import BaseModel, Field

from muster_contracts import Instant
from muster_contracts.entitlements import AccessMode, QuotaScope
from muster_entitlements.domain.catalog import Feature
from muster_entitlements.domain.grants import Grant
from muster_entitlements.domain.pools import PoolState
from muster_entitlements.domain.quotas import Limit, QuotaGrant, Sum
from muster_entitlements.domain.seats import SeatState
from muster_entitlements.domain.windows import Window
from muster_entitlements.replies import CheckReply, WindowReply
from muster_entitlements.replies.grants import GrantReply
from muster_entitlements.replies.usage import QuotaGrantReply


class FactEventReply(BaseModel):
    """An event behind a part of the answer."""

    event_id: str
    type: str
    time: Instant


class ExplainedEnrollment(BaseModel):
    """The agency's enrollment and its state."""

    enrollment_id: str
    state: PoolState
    starts_at: Instant
    ends_at: Instant
    time_zone: str | None
    events: list[FactEventReply]


class ExplainedTerm(BaseModel):
    """A term of the enrollment, as billing has published it."""

    term_id: str
    renewed_to: Instant | None = Field(description="The term's new end after an accepted renewal.")
    ended: bool = Field(description="Whether it was completed and not renewed.")
    events: list[FactEventReply]


class ExplainedSeat(BaseModel):
    """The person's seat."""

    seat_id: str
    state: SeatState
    reason: str | None
    recorded_from: Instant = Field(description="When this state began; a repeated invitation counts as a change, too.")
    trial_began_at: Instant | None = Field(description="When the trials that are anchored on this seat began.")


class ExplainedCatalog(BaseModel):
    """The version of the catalog that applies to the agency, and its terms for the feature."""

    number: int
    feature: Feature | None = Field(description="null if the feature was removed and only a grant is left.")
    events: list[FactEventReply] = Field(description="Empty for version 1, which is packaged.")


class ExplainedWindow(WindowReply):
    """The feature's window, and the access that it gives this person now."""

    access: AccessMode = Field(description="What the window allows this person now.")
    access_ends_at: Instant = Field(description="When `mode` ends for this person, and `mode_after` begins.")
    events: list[FactEventReply]

    @classmethod
    def explain(
        cls, window: Window, began_at: datetime | None, now: datetime, events: list[FactEventReply]
    ) -> "ExplainedWindow":
        """The window for a person whose seat's trial began at `began_at`."""
        return cls.model_validate(
            asdict(window)
            | {
                "grace_ends_at": window.grace_ends_at,
                "access": window.access(now, began_at),
                "access_ends_at": window.closes_at(began_at),
                "events": events,
            }
        )


class ExplainedGrant(GrantReply):
    """A grant of the feature to the person or the agency."""

    decides: bool = Field(description="Whether this grant, instead of the window, decides.")
    events: list[FactEventReply]

    @classmethod
    def explain(cls, grant: Grant, now: datetime, events: list[FactEventReply], *, decides: bool) -> "ExplainedGrant":
        """The grant at an instant."""
        return cls.model_validate(GrantReply.of(grant, now).model_dump() | {"decides": decides, "events": events})


class ExplainedQuotaGrant(QuotaGrantReply):
    """A grant of uses beyond the quota."""

    events: list[FactEventReply]

    @classmethod
    def explain(cls, grant: QuotaGrant, events: list[FactEventReply]) -> "ExplainedQuotaGrant":
        """The quota grant with the events behind it."""
        return cls.model_validate(QuotaGrantReply.of(grant).model_dump() | {"events": events})


class ExplainedQuota(BaseModel):
    """The quota that limits the feature, what is counted in its period, and the quota grants."""

    limit: int
    per: QuotaScope
    hard: bool
    report_only: bool
    starts_at: Instant = Field(description="The start of the current period.")
    resets_at: Instant
    used: int
    granted: int = Field(
        description="How much of `used` is covered by grants or a seat's trial. For a quota of the whole agency, "
        "this includes grants to others, which are not listed."
    )
    excess: int = Field(description="How much of `used` is covered by neither the quota nor a grant.")
    events: list[FactEventReply] = Field(
        description="The thresholds that the use of the current period crossed, and whether it exceeded the quota."
    )
    grants: list[ExplainedQuotaGrant] = Field(
        description="In the order in which they are spent, including those that ended in the current period."
    )

    @classmethod
    def of(
        cls, limit: Limit, total: Sum | None, events: list[FactEventReply], grants: list[ExplainedQuotaGrant]
    ) -> "ExplainedQuota":
        """The quota of a period with its counted use; None if nothing is counted."""
        return cls(
            limit=limit.quota.limit,
            per=limit.quota.per,
            hard=limit.quota.hard,
            report_only=limit.quota.report_only,
            starts_at=limit.period.starts_at,
            resets_at=limit.period.ends_at,
            used=total.used if total else 0,
            granted=total.granted if total else 0,
            excess=total.excess if total else 0,
            events=events,
            grants=grants,
        )


class ExplanationReply(BaseModel):
    """A check, and everything that decides its answer. A missing part is null."""

    subject_ref: str
    feature: str
    at: Instant
    answer: CheckReply
    enrollment: ExplainedEnrollment | None = None
    terms: list[ExplainedTerm] = []
    seat: ExplainedSeat | None = None
    catalog: ExplainedCatalog | None = None
    window: ExplainedWindow | None = None
    grants: list[ExplainedGrant] = Field(
        default=[],
        description="Current and future grants; then, if a quota limits the feature now, those that were in force in "
        "its current period.",
    )
    quota: ExplainedQuota | None = Field(default=None, description="The quota that limits the feature now, if any.")

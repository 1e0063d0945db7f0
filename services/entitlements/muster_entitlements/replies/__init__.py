"""The replies of the routes."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, datetime

from pydantic import BaseModel, Field

from muster_contracts import Instant
from muster_contracts.entitlements import (
    AccessMode,
    Anchor,
    FeatureAccessChanged,
    FeatureWindowChanged,
    FeatureWindowExtended,
    SeatBatchKind,
    TrialEndingSoon,
    TrialExpired,
)
from muster_entitlements.domain.catalog import Feature
from muster_entitlements.domain.checks import Answer, Reason, Verdict
from muster_entitlements.domain.meters import restarts_quota
from muster_entitlements.domain.operations import OnLimit, Operation, OperationState
from muster_entitlements.domain.pools import Pool, PoolState
from muster_entitlements.domain.seats import SeatPolicy, SeatState
from muster_entitlements.domain.windows import Window
from muster_runtime.pacing import Pace


class SeatReply(BaseModel):
    """A seat. It includes the person's address and name while they hold the seat.

    The stored reply to a repeated Idempotency-Key omits them.
    """

    seat_id: str
    subject_ref: str
    state: SeatState
    assigned_at: Instant = Field(description="When the seat was assigned to, or reserved for, this person.")
    invited_until: Instant | None = None
    activated_at: Instant | None = None
    revoked_at: Instant | None = None
    reason: str | None = Field(default=None, description="Why the seat is suspended or revoked: a public keyword.")
    unused_since: date | None = Field(
        default=None, description="The day (UTC) of the last use; for a seat that was never used, of its assignment."
    )
    unit: str | None = Field(default=None, description="The part of the agency that the seat is for.")
    email: str | None = None
    name: str | None = None

    @property
    def identified(self) -> str | None:
        """The reference of the person whose address or name it contains; None if it contains neither."""
        return self.subject_ref if self.email or self.name else None


class SeatStateReply(BaseModel):
    """The state of a seat after a command."""

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
    revoking: int = Field(
        description="Seats of an ended enrollment that are not revoked yet. "
        "Nobody holds them, and they do not count toward the cap."
    )
    starts_at: Instant
    ends_at: Instant
    time_zone: str | None = Field(description="The IANA name of the agency's time zone; null for UTC.")
    revision: int = Field(description="Increases with every change to the agency's entitlements.")

    @classmethod
    def of(cls, pool: Pool, now: datetime) -> "PoolReply":
        """The reply for a pool at an instant."""
        return cls(
            agency_id=pool.agency_id,
            enrollment_id=pool.enrollment_id,
            state=pool.state(now),
            cap=pool.cap,
            in_use=pool.in_use,
            revoking=pool.revoking,
            starts_at=pool.starts_at,
            ends_at=pool.ends_at,
            time_zone=pool.time_zone,
            revision=pool.revision,
        )


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
    anchor: Anchor
    seat_days: int | None = Field(
        description="How many days each seat has `mode` from its first activation, if the anchor is `seat`."
    )
    ends_soon_days: list[int] = Field(description="How many days before the end a notice is published.")
    grace_ends_at: Instant | None = Field(
        description="The exclusive end of the grace period after a trial, during which `mode` continues."
    )
    extended: bool
    catalog_number: int = Field(description="The version of the catalog whose terms it follows, such as the quota.")
    access: AccessMode = Field(
        description="What the window allows now, or at the requested instant, if the agency's pool is open; with the "
        "anchor `seat`, what it allows a seat that is not activated yet."
    )
    revision: int = Field(
        description="Increases whenever the window is moved, or a version changes its access or its grace period."
    )

    @classmethod
    def of(cls, window: Window, now: datetime) -> "WindowReply":
        """The reply for a window at an instant."""
        facts = {"grace_ends_at": window.grace_ends_at, "access": window.access(now)}
        return cls.model_validate(asdict(window) | facts)


class WindowMessageReply(BaseModel):
    """An event that would be published; notify's rules decide who gets an e-mail."""

    event: str
    at: Instant
    days_left: int | None = None


class WindowPreviewReply(BaseModel):
    """How a decision would change a window, who would be affected, and what would be published."""

    window: WindowReply
    previous_starts_at: Instant
    previous_ends_at: Instant
    seats: int = Field(description="Seats in use, whose holders would be affected.")
    restarts_quota: bool = Field(
        description="Whether the whole quota would be available again, because use of the current period would no "
        "longer count. Its thresholds would be published again."
    )
    messages: list[WindowMessageReply] = Field(
        description="The events, oldest first. Those after the term's end are canceled if no term follows."
    )

    @classmethod
    def of(cls, before: Window, after: Window, pool: Pool, feature: Feature, now: datetime) -> "WindowPreviewReply":
        """The reply for a window before and after a decision at an instant."""
        changed = FeatureWindowExtended if after.extended and not before.extended else FeatureWindowChanged
        notices = [
            WindowMessageReply(event=TrialEndingSoon.event_type, at=at, days_left=days)
            for days, at in after.notices().items()
            if at > now
        ]
        ends = [WindowMessageReply(event=TrialExpired.event_type, at=after.ends_at)] if after.lasts else []
        if after.grace_ends_at is not None:
            ends.append(WindowMessageReply(event=FeatureAccessChanged.event_type, at=after.grace_ends_at))
        messages = [WindowMessageReply(event=changed.event_type, at=now), *notices, *ends]
        return cls(
            window=WindowReply.of(after, now),
            previous_starts_at=before.starts_at,
            previous_ends_at=before.ends_at,
            seats=pool.in_use,
            restarts_quota=restarts_quota(pool, feature, before, after, now),
            messages=sorted(messages, key=lambda message: message.at),
        )


class CheckReply(BaseModel):
    """Whether a person may use a feature, why, and how long the answer is valid."""

    verdict: Verdict
    reason: Reason
    valid_until: Instant | None = Field(
        description="null: until the revision increases. What remains of a quota changes with each use."
    )
    revision: int
    monthly_quota: int | None = Field(
        default=None, description="The limit again, if the quota is per seat and calendar month; null for any other."
    )
    limit: int | None = Field(default=None, description="Maximum uses in a period, if a quota limits the feature now.")
    used: int | None = Field(
        default=None,
        description="Uses in the period: the person's, or the whole agency's if the quota is per agency. "
        "null at a past instant.",
    )
    remaining: int | None = Field(
        default=None,
        description="Uses left, including those of quota grants; at a past instant, 0 if none was left, or else null.",
    )
    resets_at: Instant | None = Field(default=None, description="When the period of the quota ends.")

    @classmethod
    def of(cls, answer: Answer) -> "CheckReply":
        """The reply for an answer."""
        return cls.model_validate(asdict(answer))


class ChecksReply(BaseModel):
    """The answers to many checks, in the order of the request."""

    answers: list[CheckReply]

    @classmethod
    async def of(cls, answers: Sequence[Answer]) -> "ChecksReply":
        """The reply for answers, many of which are equal."""
        replies: dict[Answer, CheckReply] = {}
        pace = Pace()
        for answer in answers:
            await pace.keep()
            if answer not in replies:
                replies[answer] = CheckReply.of(answer)
        return cls(answers=[replies[answer] for answer in answers])


class SeatPolicyReply(BaseModel):
    """An agency's seat policy."""

    idle_days: int | None = Field(description="Days without use after which a seat is idle; null: never.")
    warning_days: int = Field(description="Days from the warning until an idle seat is revoked.")
    invitation_days: int = Field(description="How many days an invitation is valid.")
    version: int = Field(description="Increases with each change; the ETag.")

    @classmethod
    def of(cls, policy: SeatPolicy, version: int) -> "SeatPolicyReply":
        """The reply for a policy in a version."""
        return cls(**asdict(policy), version=version)


class UseReply(BaseModel):
    """A recorded use."""

    subject_ref: str
    used_on: date = Field(description="The day (UTC).")


class OperationReply(BaseModel):
    """The processing of a seat file."""

    operation_id: str
    kind: SeatBatchKind
    state: OperationState
    dry_run: bool = Field(description="If true, nothing is changed; the totals show what would change.")
    on_limit: OnLimit
    rows: int = Field(description="Rows read so far.")
    assigned: int = Field(description="Rows that assigned a seat.")
    changed: int = Field(description="Rows that suspended, revoked, or transferred a seat.")
    already_held: int = Field(description="Rows without a change.")
    refused: int
    stop_reason: str | None = Field(description="Why the rest of the file was not read.")
    progress: float = Field(description="From 0 to 1.")
    rows_per_second: float | None
    seconds_left: float | None
    created_at: Instant
    started_at: Instant | None
    updated_at: Instant | None
    results: str = Field(description="The path of the results, one CSV line per row.")

    @classmethod
    def of(cls, operation: Operation, now: datetime) -> "OperationReply":
        """The reply for an operation at an instant."""
        running = operation.state is OperationState.RUNNING
        imported = operation.kind is SeatBatchKind.IMPORT
        progress = operation.chunks_done / operation.chunks if running and operation.chunks else 0.0 if running else 1.0
        since, until = operation.started_at, now if running else operation.updated_at
        seconds = (until - since).total_seconds() if since and until else 0.0
        return cls(
            operation_id=operation.operation_id,
            kind=operation.kind,
            state=operation.state,
            dry_run=operation.dry_run,
            on_limit=operation.on_limit,
            rows=operation.rows,
            assigned=operation.done if imported else 0,
            changed=0 if imported else operation.done,
            already_held=operation.unchanged,
            refused=operation.refused,
            stop_reason=operation.stop_reason,
            progress=progress,
            rows_per_second=round(operation.rows / seconds, 1) if seconds > 0 else None,
            seconds_left=round(seconds * (1 - progress) / progress, 1) if seconds > 0 and progress else None,
            created_at=operation.created_at,
            started_at=operation.started_at,
            updated_at=operation.updated_at,
            results=f"/v1/agencies/{operation.agency_id}/operations/{operation.operation_id}/results",
        )

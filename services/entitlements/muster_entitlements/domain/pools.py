"""An agency's pool of seats, and what billing has published about its enrollment."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

from muster_entitlements.domain.days import zone_of


class PoolState(StrEnum):
    """The state of an agency's pool at an instant."""

    UNKNOWN = "unknown"
    NOT_STARTED = "not_started"
    OPEN = "open"
    SUSPENDED = "suspended"
    WITHDRAWN = "withdrawn"
    ENDED = "ended"


# Seats can be assigned before the term starts, so that people are ready on the first day.
ASSIGNABLE = frozenset({PoolState.OPEN, PoolState.NOT_STARTED})

# How many revisions of an agency belong to an epoch: more than its commands, which run one at a time, can use between a
# backup and its restore. After a million epochs, revisions are still below 2^53, up to which JavaScript is exact.
REVISIONS_PER_EPOCH = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Pool:
    """The seats of an agency's enrollment, for the term [starts_at, ends_at).

    `ended` comes from billing: the term was completed and no other follows. `revoking` counts the seats of earlier
    generations that are not revoked yet: nobody holds them, and they do not count toward the cap.
    """

    agency_id: str
    enrollment_id: str
    starts_at: datetime
    ends_at: datetime
    suspended: bool
    withdrawn_at: datetime | None
    ended: bool
    cap: int
    in_use: int
    limit_met: bool
    revision: int
    generation: int
    revoking: int
    time_zone: str | None = None
    """The agency's time zone, by its name in the IANA database; None for UTC."""

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of the agency's days."""
        return zone_of(self.time_zone)

    @property
    def free(self) -> int:
        """The seats that nobody holds."""
        return self.cap - self.in_use

    @property
    def is_over(self) -> bool:
        """Whether the enrollment is withdrawn or ended."""
        return self.withdrawn_at is not None or self.ended

    def state(self, now: datetime) -> PoolState:
        """The state at an instant. A withdrawal takes precedence over the term's end, and that over a suspension."""
        if self.withdrawn_at is not None:
            return PoolState.WITHDRAWN
        if self.ended or now >= self.ends_at:
            return PoolState.ENDED
        if self.suspended:
            return PoolState.SUSPENDED
        return PoolState.NOT_STARTED if now < self.starts_at else PoolState.OPEN


def first_revision(epoch: int) -> int:
    """The lowest revision in an epoch of the service's streams, above every revision answered in earlier epochs.

    Most revisions are answered but not published, so after a restore nothing else shows how high they were. An agency
    whose enrollment was lost also starts again here.
    """
    return (epoch - 1) * REVISIONS_PER_EPOCH + 1


@dataclass(frozen=True, slots=True)
class Standing:
    """What a person has in a pool: the ID of their seat, and whether they own anything besides it, such as a grant.

    `began_at` is when the trial of the person's earlier seat began, which a new seat continues; None if none has.
    """

    seat_id: str | None
    owning: bool
    began_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What billing has published about an enrollment's terms: the end after renewals, and whether it has ended."""

    renewed_to: datetime | None
    ended: bool

"""An agency's pool of seats, and how it stands with billing."""

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

# How many revisions of an agency belong to an epoch: more than its commands, one after another under its lock, reach
# between a backup and its restore. A million epochs leave them below 2^53, up to which JavaScript counts exactly.
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
    """The agency's, by the IANA database; None for UTC."""

    @property
    def zone(self) -> ZoneInfo:
        """Where the agency's days are."""
        return zone_of(self.time_zone)

    @property
    def free(self) -> int:
        """Seats that nobody holds."""
        return self.cap - self.in_use

    def state(self, now: datetime) -> PoolState:
        """The state at an instant. A withdrawal precedes the end of the term, which precedes a suspension."""
        if self.withdrawn_at is not None:
            return PoolState.WITHDRAWN
        if self.ended or now >= self.ends_at:
            return PoolState.ENDED
        if self.suspended:
            return PoolState.SUSPENDED
        return PoolState.NOT_STARTED if now < self.starts_at else PoolState.OPEN


def first_revision(epoch: int) -> int:
    """The lowest revision in an epoch of the service's streams, above all that were answered in earlier ones.

    Most revisions are answered without being published, so after a restore nothing else says how far they had come.
    Neither do they for an agency whose enrollment was lost: it begins here again.
    """
    return (epoch - 1) * REVISIONS_PER_EPOCH + 1


@dataclass(frozen=True, slots=True)
class Standing:
    """What a person has of a pool: the ID of their seat, and whether they own anything beside it.

    `began_at` is when the trial of an earlier seat of theirs began, which a new one continues; None if none has.
    """

    seat_id: str | None
    owning: bool
    began_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What billing's terms mean for an enrollment: the end that renewals bring, and whether it has ended."""

    renewed_to: datetime | None
    ended: bool

"""The commands of entitlements."""

from dataclasses import dataclass
from datetime import datetime

from muster_contracts.entitlements import AccessMode, CatalogRule
from muster_entitlements.domain.catalog import Feature
from muster_entitlements.domain.people import Person
from muster_entitlements.domain.seats import SeatPolicy, SeatState
from muster_entitlements.domain.windows import End, Start


@dataclass(frozen=True, slots=True)
class AssignSeat:
    """Assign a seat to a person, or keep it for them, reserved or invited."""

    agency_id: str
    person: Person
    state: SeatState = SeatState.ASSIGNED
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class ActivateSeat:
    """Record that the person has started to use the seat."""

    agency_id: str
    seat_id: str


@dataclass(frozen=True, slots=True)
class RevokeSeat:
    """Revoke a seat. Only the audit trail keeps the reason."""

    agency_id: str
    seat_id: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class InviteToSeat:
    """Invite the person to a seat that is reserved for them, or repeat an invitation."""

    agency_id: str
    seat_id: str


@dataclass(frozen=True, slots=True)
class SuspendSeat:
    """Suspend a seat: the person keeps it but cannot use it. The reason is public."""

    agency_id: str
    seat_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReinstateSeat:
    """Reinstate a suspended seat."""

    agency_id: str
    seat_id: str


@dataclass(frozen=True, slots=True)
class TransferSeat:
    """Transfer a seat to another person."""

    agency_id: str
    seat_id: str
    person: Person


@dataclass(frozen=True, slots=True)
class MarkUse:
    """Record that a person uses a feature today."""

    agency_id: str
    subject_ref: str
    feature: str


@dataclass(frozen=True, slots=True)
class ResizePool:
    """Set the agreed number of seats."""

    agency_id: str
    cap: int


@dataclass(frozen=True, slots=True)
class SetSeatPolicy:
    """Set an agency's seat policy; `if_version` is the version that the caller read."""

    agency_id: str
    policy: SeatPolicy
    if_version: int | None


@dataclass(frozen=True, slots=True)
class SaveCatalogDraft:
    """Save the whole draft of the catalog's next version; `if_revision` is the revision that the caller read."""

    rule: CatalogRule
    features: tuple[Feature, ...]
    if_revision: int | None


@dataclass(frozen=True, slots=True)
class PublishCatalog:
    """Publish the draft of the catalog; `revision` is the one that the caller read.

    `allow_below_use`: even if it immediately lowers a quota below the use in the current period.
    """

    revision: int
    allow_below_use: bool


@dataclass(frozen=True, slots=True)
class GrantFeature:
    """Grant a feature to an agency or, with `subject_ref`, to one person. By default, the grant starts now.

    `allow_below_use`: even if its quota is below the use in its first period.
    """

    agency_id: str
    feature: str
    subject_ref: str | None
    mode: AccessMode
    starts_at: datetime | None
    ends_at: datetime | None
    reason: str
    allow_below_use: bool


@dataclass(frozen=True, slots=True)
class RevokeGrant:
    """Revoke a grant before its end. The reason is public."""

    agency_id: str
    grant_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ConsumeFeature:
    """Use a feature `amount` times, if the quota allows it."""

    agency_id: str
    subject_ref: str
    feature: str
    amount: int


@dataclass(frozen=True, slots=True)
class DiscardParkedUsage:
    """Discard usage records that could not be counted."""

    ids: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class GrantQuota:
    """Grant uses beyond a quota within [starts_at, ends_at), to a person or, with None, to all people of the agency."""

    agency_id: str
    subject_ref: str | None
    feature: str
    amount: int
    priority: int
    starts_at: datetime | None
    ends_at: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class ExtendWindow:
    """Extend a trial. Only the audit trail keeps the reason."""

    agency_id: str
    window_id: str
    end: End
    reason: str


@dataclass(frozen=True, slots=True)
class EndWindow:
    """End a trial early, by default now. Only the audit trail keeps the reason."""

    agency_id: str
    window_id: str
    end: End
    reason: str


@dataclass(frozen=True, slots=True)
class CorrectWindowStart:
    """Correct the start of a trial, which keeps its length. Only the audit trail keeps the reason."""

    agency_id: str
    window_id: str
    start: Start
    reason: str


@dataclass(frozen=True, slots=True)
class EraseLostPerson:
    """Erase a person whom the directory topic has and whose seat a restore of this service lost."""

    agency_id: str
    subject_ref: str
    reason: str

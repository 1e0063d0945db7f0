"""The errors of entitlements."""

from collections.abc import Sequence
from datetime import datetime

from muster_runtime.errors import Conflict, NotFound, PermanentError, rfc3339
from muster_runtime.text import did_you_mean


class PoolNotOpen(Conflict):
    """The agency's seat pool is suspended, withdrawn, or ended, or has not started."""

    slug = "pool-not-open"
    title = "The seat pool is not open"

    def __init__(self, agency_id: str, state: str) -> None:
        super().__init__(f"the seat pool of {agency_id} is not open: {state}", reason=state)


class PoolUnknown(NotFound):
    """The agency has never been enrolled."""

    slug = "pool-unknown"
    title = "The agency has no seat pool"

    def __init__(self, agency_id: str) -> None:
        super().__init__(f"{agency_id} has no seat pool because it has never been enrolled", reason="unknown")


class SeatCapReached(Conflict):
    """Every seat of the agreed cap is in use."""

    slug = "seat-cap-reached"
    title = "All seats are in use"

    def __init__(self, agency_id: str, cap: int) -> None:
        super().__init__(
            f"all {cap} seats of {agency_id} are in use; revoke a seat, or ask the program for more",
            reason=self.slug,
            cap=cap,
        )


class SeatAlreadyHeld(Conflict):
    """The person already holds a seat of this agency."""

    slug = "seat-already-held"
    title = "The person already holds a seat"

    def __init__(self, subject_ref: str, seat_id: str) -> None:
        super().__init__(f"{subject_ref} already holds seat {seat_id}", seat_id=seat_id)


class SeatRevokedAlready(Conflict):
    """A revoked seat cannot be restored; assign the person another one."""

    slug = "seat-revoked"
    title = "The seat is revoked"

    def __init__(self, seat_id: str) -> None:
        super().__init__(f"seat {seat_id} is revoked; assign the person a new seat")


class SeatStateRefused(Conflict):
    """The seat's state does not allow the action."""

    slug = "seat-state"
    title = "The seat's state does not allow this"

    def __init__(self, seat_id: str, state: str, action: str) -> None:
        super().__init__(f"seat {seat_id} is {state} and cannot be {action}", reason=state)


class WindowUnknown(NotFound):
    """The agency's enrollment has no such window."""

    slug = "window-unknown"
    title = "Window not found"

    def __init__(self, agency_id: str, window_id: str) -> None:
        super().__init__(f"the enrollment of {agency_id} has no window {window_id[:60]!r}")


class WindowWithoutTrial(Conflict):
    """The window lasts as long as the term; only the term changes it."""

    slug = "window-without-trial"
    title = "The window is not a trial"

    def __init__(self, window_id: str, feature: str) -> None:
        super().__init__(f"window {window_id} of {feature} lasts as long as the term; only a trial can be changed")


class WindowOver(Conflict):
    """The trial has ended."""

    slug = "window-over"
    title = "The window has ended"

    def __init__(self, window_id: str, ends_at: datetime) -> None:
        super().__init__(
            f"window {window_id} ended at {rfc3339(ends_at)}, or its enrollment or term is over; only a trial that "
            "has not ended can be changed"
        )


class WindowExtendedAlready(Conflict):
    """A window can be extended once."""

    slug = "window-extended-already"
    title = "The window has already been extended"

    def __init__(self, window_id: str) -> None:
        super().__init__(f"window {window_id} has already been extended; a window can be extended only once")


class CapBelowUse(Conflict):
    """More seats are in use than the new cap allows."""

    slug = "cap-below-use"
    title = "More seats are in use than the cap allows"

    def __init__(self, cap: int, in_use: int) -> None:
        super().__init__(f"cap: must be at least {in_use}, the number of seats in use; got {cap}", in_use=in_use)


class UseRefused(Conflict):
    """The person cannot use the feature now."""

    slug = "use-refused"
    title = "The feature is not available"

    def __init__(self, feature: str, reason: str) -> None:
        super().__init__(f"feature {feature} is not available: {reason}", feature=feature, reason=reason)


class QuotaUsedUp(Conflict):
    """Neither the quota nor a grant pays for the uses; none of them was counted."""

    slug = "quota-used-up"
    title = "Not enough of the quota is left"

    def __init__(self, limit: int, used: int, remaining: int, amount: int, resets_at: datetime, grants: bool) -> None:
        whole = f"the quota of {limit} and the quota grants" if grants else f"the quota of {limit}"
        left = f"left of {whole} until {rfc3339(resets_at)}"
        super().__init__(
            f"amount: must be at most {remaining}, what is {left}; got {amount}" if remaining else f"nothing is {left}",
            reason="quota_used_up",
            limit=limit,
            used=used,
            remaining=remaining,
            resets_at=rfc3339(resets_at),
        )


class SeatUnknown(NotFound):
    """The agency has no such seat."""

    slug = "seat-unknown"
    title = "Seat not found"

    def __init__(self, agency_id: str, seat_id: str) -> None:
        super().__init__(f"{agency_id} has no seat {seat_id[:60]!r}")


class FeatureUnknown(NotFound):
    """The catalog has no such feature."""

    slug = "feature-unknown"
    title = "Feature not found"

    def __init__(self, feature: str, nearest: Sequence[str] = (), past: datetime | None = None) -> None:
        lacks, when = ("has", "") if past is None else ("had", f" at {rfc3339(past)}")
        super().__init__(
            f"feature: the catalog {lacks} no feature {feature[:60]!r}{when}{did_you_mean(nearest)}",
            nearest=list(nearest),
        )


class CatalogVersionUnknown(NotFound):
    """The catalog has no such version."""

    slug = "catalog-version-unknown"
    title = "Catalog version not found"

    def __init__(self, number: int) -> None:
        super().__init__(f"the catalog has no published version {number}")


class CatalogDraftMissing(NotFound):
    """The catalog has no draft: the last one was published, or none was saved."""

    slug = "catalog-draft-missing"
    title = "The catalog has no draft"

    def __init__(self) -> None:
        super().__init__("the catalog has no draft; save one with PUT /v1/catalog/draft")


class GrantUnknown(NotFound):
    """The agency has no such grant."""

    slug = "grant-unknown"
    title = "Grant not found"

    def __init__(self, agency_id: str, grant_id: str) -> None:
        super().__init__(f"{agency_id} has no grant {grant_id[:60]!r}")


class QuotaGrantsFull(Conflict):
    """The person, or the agency, has too many quota grants of the feature that are not spent."""

    slug = "quota-grants-full"
    title = "Too many unspent quota grants"

    def __init__(self, feature: str, most: int) -> None:
        super().__init__(f"{most} quota grants of {feature} are still open: wait until one is spent or ends", most=most)


class GrantsFull(Conflict):
    """The record of the person, or the agency, has no room for another grant."""

    slug = "grants-full"
    title = "Too many grants are still open"


class GrantOverlaps(Conflict):
    """The agency or the person already has a grant of the feature for part of that time."""

    slug = "grant-overlaps"
    title = "Another grant overlaps"

    def __init__(self, grant_id: str) -> None:
        super().__init__(
            f"starts_at, ends_at: must not overlap grant {grant_id} of the same feature; revoke it first",
            grant_id=grant_id,
        )


class GrantEnded(Conflict):
    """The grant is over, so it cannot be revoked."""

    slug = "grant-ended"
    title = "The grant has ended"

    def __init__(self, grant_id: str, ended_at: datetime) -> None:
        super().__init__(f"grant {grant_id} ended at {rfc3339(ended_at)}; one that has ended cannot be revoked")


class TermUnknown(PermanentError):
    """Billing published an event about an unknown term: a gap in its stream was accepted."""

    slug = "term-unknown"
    title = "Term not found"

    def __init__(self, agency_id: str, term_id: str) -> None:
        super().__init__(f"{agency_id} has no term {term_id}: its TermStarted never arrived")


class TermRenewedAlready(PermanentError):
    """Billing published that a term ended without a renewal, although it had published that one was accepted."""

    slug = "term-renewed-already"
    title = "The term was renewed"

    def __init__(self, agency_id: str, term_id: str, renewed_to: datetime) -> None:
        super().__init__(
            f"term {term_id} of {agency_id} cannot end without a renewal: it was renewed until {rfc3339(renewed_to)}"
        )

"""From a fact of the domain to the event of the contract."""

from muster_contracts.entitlements import (
    FeatureWindowExtended,
    FeatureWindowOpened,
    PersonErased,
    PersonRecorded,
    SeatActivated,
    SeatAssigned,
    SeatLimitReached,
    SeatRevocationReason,
    SeatRevoked,
    TrialEndingSoon,
    TrialExpired,
)
from muster_entitlements.domain import Pool, Window
from muster_entitlements.people import Person
from muster_entitlements.repository.seats import Seat
from muster_entitlements.repository.windows import Extension


def window_opened(window: Window) -> FeatureWindowOpened:
    """A feature is open."""
    return FeatureWindowOpened(
        agency_id=window.agency_id,
        window_id=window.window_id,
        feature=window.feature,
        mode=window.mode,
        starts_at=window.starts_at,
        ends_at=window.ends_at,
        mode_after=window.mode_after,
        monthly_quota_after=window.monthly_quota_after,
    )


def window_extended(extension: Extension) -> FeatureWindowExtended:
    """A window ends later."""
    return FeatureWindowExtended(
        agency_id=extension.agency_id,
        window_id=extension.window_id,
        feature=extension.feature,
        previous_ends_at=extension.previous_ends_at,
        ends_at=extension.ends_at,
    )


def trial_ending_soon(window: Window, days_left: int) -> TrialEndingSoon:
    """A trial ends soon."""
    return TrialEndingSoon(
        agency_id=window.agency_id,
        window_id=window.window_id,
        feature=window.feature,
        ends_at=window.ends_at,
        days_left=days_left,
    )


def trial_expired(window: Window) -> TrialExpired:
    """A trial is over."""
    return TrialExpired(
        agency_id=window.agency_id,
        window_id=window.window_id,
        feature=window.feature,
        expired_at=window.ends_at,
        mode_after=window.mode_after,
        monthly_quota_after=window.monthly_quota_after,
    )


def seat_assigned(agency_id: str, seat_id: str, person: Person) -> SeatAssigned:
    """A person holds a seat."""
    return SeatAssigned(agency_id=agency_id, seat_id=seat_id, subject_ref=person.subject_ref)


def seat_activated(seat: Seat) -> SeatActivated:
    """A seat is in use."""
    return SeatActivated(agency_id=seat.agency_id, seat_id=seat.seat_id, subject_ref=seat.subject_ref)


def seat_revoked(seat: Seat, reason: SeatRevocationReason) -> SeatRevoked:
    """A seat was taken back."""
    return SeatRevoked(agency_id=seat.agency_id, seat_id=seat.seat_id, subject_ref=seat.subject_ref, reason=reason)


def seat_limit_reached(pool: Pool, refused: int) -> SeatLimitReached:
    """Seats were refused, for every one is in use."""
    return SeatLimitReached(agency_id=pool.agency_id, cap=pool.cap, in_use=pool.cap, refused=refused)


def person_recorded(agency_id: str, person: Person) -> PersonRecorded:
    """Who a reference is; for the restricted directory."""
    return PersonRecorded(agency_id=agency_id, subject_ref=person.subject_ref, email=person.email, name=person.name)


def person_erased(seat: Seat) -> PersonErased:
    """A reference is nobody's any more; for the restricted directory."""
    return PersonErased(agency_id=seat.agency_id, subject_ref=seat.subject_ref)

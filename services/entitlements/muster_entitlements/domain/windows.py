"""Feature windows: how a feature may be used, and from when until when."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from muster_contracts.entitlements import AccessMode
from muster_entitlements.domain.catalog import Feature
from muster_entitlements.domain.pools import Pool

TRIAL_NOTICE_DAYS = (14, 7, 1)


@dataclass(frozen=True, slots=True)
class Window:
    """A feature is open in `mode` within [starts_at, ends_at), and in `mode_after` afterward."""

    window_id: str
    agency_id: str
    enrollment_id: str
    feature: str
    trial: bool
    mode: AccessMode
    starts_at: datetime
    ends_at: datetime
    mode_after: AccessMode
    monthly_quota_after: int | None
    catalog_number: int
    """The version of the catalog whose terms it has."""
    renewable: bool = True
    """Whether a renewal extends it, if it lasts as long as the term."""

    @classmethod
    def open(
        cls,
        window_id: str,
        feature: Feature,
        pool: Pool,
        catalog_number: int,
        used: timedelta = timedelta(),
        opens_at: datetime | None = None,
    ) -> "Window":
        """The window that a pool's term, or an instant within it, opens for a feature of a version of the catalog.

        A trial is shorter by what earlier enrollments have `used` of it: a second enrollment brings no second trial.
        """
        left = max(feature.trial - used, timedelta()) if feature.trial else None
        starts_at = pool.starts_at if opens_at is None else min(max(opens_at, pool.starts_at), pool.ends_at)
        return cls(
            window_id=window_id,
            agency_id=pool.agency_id,
            enrollment_id=pool.enrollment_id,
            feature=feature.key,
            trial=feature.trial is not None,
            mode=feature.mode,
            starts_at=starts_at,
            ends_at=starts_at + left if left is not None else pool.ends_at,
            mode_after=feature.mode_after,
            monthly_quota_after=feature.seat_quota_after,
            catalog_number=catalog_number,
        )

    def access(self, now: datetime) -> AccessMode:
        """How the feature can be used at an instant."""
        if now < self.starts_at:
            return AccessMode.NONE
        return self.mode if now < self.ends_at else self.mode_after

    def notices(self) -> dict[int, datetime]:
        """The instants of the notices that the window ends soon, by the days left; none before it opens."""
        instants = {days: self.ends_at - timedelta(days=days) for days in TRIAL_NOTICE_DAYS}
        return {days: instant for days, instant in instants.items() if instant >= self.starts_at}


@dataclass(frozen=True, slots=True)
class Extension:
    """A window that now ends later."""

    agency_id: str
    window_id: str
    feature: str
    previous_ends_at: datetime
    ends_at: datetime

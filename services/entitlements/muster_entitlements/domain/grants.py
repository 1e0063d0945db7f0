"""Grants: a feature for a whole agency or one person, in addition to the catalog's windows."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from muster_contracts.entitlements import AccessMode
from muster_entitlements.domain.quotas import QuotaGrant

# The most grants of a feature to one person, or to the agency, that are neither over nor revoked: a check reads all.
MOST_STANDING = 50


@dataclass(frozen=True, slots=True)
class Grant:
    """A feature is granted in `mode` within [starts_at, ends_at); without an end, until it is revoked.

    Without a `subject_ref`, it is for every seat of the agency.
    """

    grant_id: str
    agency_id: str
    feature: str
    subject_ref: str | None
    mode: AccessMode
    monthly_quota: int | None
    starts_at: datetime
    ends_at: datetime | None
    reason: str
    revoked_at: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """Whether the grant is in force at an instant."""
        if self.revoked_at is not None and now >= self.revoked_at:
            return False
        return self.starts_at <= now and (self.ends_at is None or now < self.ends_at)

    def overlaps(self, other: "Grant | QuotaGrant") -> bool:
        """Whether two grants are in force at the same time at some point, if neither is revoked."""
        return (other.ends_at is None or self.starts_at < other.ends_at) and (
            self.ends_at is None or other.starts_at < self.ends_at
        )


def holding(grants: Iterable[Grant], now: datetime) -> Grant | None:
    """The grant that decides at an instant, the person's before the agency's; None if none is in force."""
    return max((grant for grant in grants if grant.holds(now)), key=lambda grant: grant.subject_ref or "", default=None)

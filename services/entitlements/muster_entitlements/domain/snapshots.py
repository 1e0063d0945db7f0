"""What a person, or an agency, has beside seats and windows, of which copies are held."""

from dataclasses import dataclass
from datetime import datetime

from muster_entitlements.domain.grants import Grant
from muster_entitlements.domain.quotas import PublishedUse


@dataclass(frozen=True, slots=True)
class FurtherUse:
    """Uses beyond a feature's quota that are granted within [starts_at, ends_at), of which some are left."""

    feature: str
    starts_at: datetime
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class Own:
    """Grants, the use of quotas as of the last threshold that was published, and further uses."""

    grants: tuple[Grant, ...] = ()
    uses: tuple[PublishedUse, ...] = ()
    further: tuple[FurtherUse, ...] = ()


NOTHING = Own()

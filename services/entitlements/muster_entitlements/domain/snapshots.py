"""What a person or an agency has besides seats and windows, as snapshots contain it."""

from dataclasses import dataclass
from datetime import datetime

from muster_entitlements.domain.grants import Grant
from muster_entitlements.domain.quotas import PublishedUse


@dataclass(frozen=True, slots=True)
class FurtherUse:
    """Uses beyond a feature's quota that are granted within [starts_at, ends_at) and not all spent."""

    feature: str
    starts_at: datetime
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class Own:
    """Grants, the use of quotas as it was last published, and further uses."""

    grants: tuple[Grant, ...] = ()
    uses: tuple[PublishedUse, ...] = ()
    further: tuple[FurtherUse, ...] = ()


NOTHING = Own()

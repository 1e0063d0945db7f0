"""What a person, or an agency, has beside seats and windows, of which copies are held."""

from dataclasses import dataclass

from muster_entitlements.domain.grants import Grant
from muster_entitlements.domain.quotas import PublishedUse


@dataclass(frozen=True, slots=True)
class Own:
    """Grants, and the use of quotas as of the last threshold that was published."""

    grants: tuple[Grant, ...] = ()
    uses: tuple[PublishedUse, ...] = ()


NOTHING = Own()

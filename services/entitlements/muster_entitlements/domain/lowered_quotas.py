"""Quotas that a version of the catalog lowers within the current period, and who has used more than they allow."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from muster_contracts.entitlements import AccessMode, QuotaScope
from muster_entitlements.domain.catalog import Catalog
from muster_entitlements.domain.grants import Grant
from muster_entitlements.domain.meters import Meter, Terms
from muster_entitlements.domain.plans import Versions
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.rollouts import adopt
from muster_entitlements.domain.windows import Window
from muster_runtime.pacing import Pace

# How many agencies a refusal names.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class LoweredQuota:
    """An enforced quota that starts to apply to an agency within a period, and the start of that period.

    With `begun_until`, it does not limit seats whose trials began after that instant: those trials continue.
    """

    agency_id: str
    feature: str
    per: QuotaScope
    starts_at: datetime
    limit: int
    begun_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Above:
    """How many people of an agency have used more than a quota allows, and the most that any of them has used.

    For a quota of the whole agency, `people` is 0, and `most` is the agency's use. Use that grants paid for is left
    out.
    """

    agency_id: str
    feature: str
    people: int
    most: int

    def __str__(self) -> str:
        if not self.people:
            return self.agency_id
        return f"{self.people} {'person' if self.people == 1 else 'people'} of {self.agency_id}"


async def lowered_quotas(
    pool: Pool,
    catalog: Catalog,
    windows: Mapping[str, Window],
    used: Mapping[str, timedelta],
    grants: Sequence[Grant],
    now: datetime,
    versions: Versions,
) -> AsyncIterator[LoweredQuota]:
    """The enforced quotas that a version lowers, or adds if no enforced quota of the same scope applies now.

    `grants` are feature grants to the whole agency: they take precedence over its windows.
    """
    pace = Pace()
    for change in adopt(pool, catalog, windows, used, now):
        await pace.keep()
        key, window = change.after.feature, change.after
        if window.catalog_number != catalog.number:  # the window keeps its present terms
            continue
        own = [grant for grant in grants if grant.feature == key]
        comes = _terms(pool, window, own, now, versions)
        if comes is None or comes.quota is None or not comes.quota.enforced:
            continue
        stays = _terms(pool, windows[key], own, now, versions) if key in windows else None
        present = stays.quota if stays is not None else None
        alike = present is not None and present.enforced and present.per is comes.quota.per
        if not alike or present is None or present.limit > comes.quota.limit:
            trial, quota = window.seat_trial, comes.quota
            begun_until = None if trial is None or window.access(now) is AccessMode.QUOTA else now - trial
            yield LoweredQuota(pool.agency_id, key, quota.per, comes.period.starts_at, quota.limit, begun_until)


def _terms(pool: Pool, window: Window, grants: Sequence[Grant], now: datetime, versions: Versions) -> Terms | None:
    """How use that a quota limits counts now; None if no quota limits any.

    If each seat has its own trial, the quota may limit the seats in their trial, or only those whose trial is over.
    """
    feature = versions[window.catalog_number].features[window.feature]
    meter = Meter(pool.zone, {window.feature: window}, {}, term_ends_at=pool.ends_at)
    begun = [None] if window.seat_trial is None else [None, now - window.seat_trial]
    found = (meter.at(feature, now, grants, began_at) for began_at in begun)
    return next((terms for terms in found if terms.quota is not None), None)


def rule_against(above: Sequence[Above]) -> str:
    """The rule that refuses a quota below what people have used."""
    named = [str(each) for each in above[:_NAMED]]
    if more := len(above) - len(named):
        named.append(f"{more} more {'agency' if more == 1 else 'agencies'}")
    who = f"{', '.join(named[:-1])} and {named[-1]}" if named[1:] else named[0]
    most = max(each.most for each in above)
    return f"must be at least {most}: {who} used up to that many in the current period; or allow_below_use must be true"

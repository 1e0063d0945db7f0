"""Quotas: the period in which a use counts, and how many uses are left."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from muster_contracts.entitlements import QuotaPeriod, QuotaScope
from muster_entitlements.domain.catalog import Quota
from muster_entitlements.domain.days import months_between, months_later, resolve
from muster_entitlements.domain.windows import Window
from muster_runtime.pacing import Pace

# The subject of the sum of an agency's whole use.
WHOLE_AGENCY = ""

# The value of `told` once a quota is exceeded: above every threshold. The earlier release reads from it that
# QuotaExceeded was published.
EXCEEDED = 101

# How long the published use of a quota, and the events that report it, are kept after the period's end as it was then.
# A period is at most a month long, so this is enough even if its end moves.
KEPT_FOR = timedelta(days=45)


@dataclass(frozen=True, slots=True)
class Period:
    """The uses within [starts_at, ends_at) count together."""

    starts_at: datetime
    ends_at: datetime

    @classmethod
    def of(
        cls,
        at: datetime,
        quota: Quota | None,
        window: Window | None,
        zone: ZoneInfo,
        *,
        reopens: bool = False,
        renews: bool = False,
    ) -> "Period":
        """The period of a use at an instant: the agency's calendar month, or a month counted from the window's start.

        It is cut when the window opens and when its access changes, so that unlimited use counts against no quota.
        `reopens`: another window opens when this one closes, so months are counted from then, even if it opens late.
        `renews`: a renewal, which may be late, will extend the window, so its end cuts nothing.
        """
        if quota is not None and window is not None and quota.period is QuotaPeriod.ANCHOR:
            anchor = window.closes_at() if reopens and at >= window.closes_at() else window.starts_at
            starts_at, ends_at = _rolling_month(at, anchor, zone)
        else:
            starts_at, ends_at = _calendar_month(at, zone)
        cuts = [] if window is None else [window.starts_at] if renews else [window.starts_at, window.closes_at()]
        return cls(
            starts_at=max([starts_at, *(cut for cut in cuts if cut <= at)]),
            ends_at=min([ends_at, *(cut for cut in cuts if cut > at)]),
        )


class Sum(NamedTuple):
    """How much a subject used a feature in a period; the fields are the columns of the table.

    `told` is the highest threshold that was published, or EXCEEDED once a quota above 0 was exceeded. With any
    `excess`, QuotaExceeded was published. `days` has a bit for each day with use. `fresh_days` has only the bits that
    the last addition set.
    """

    agency_id: str
    feature: str
    subject_ref: str
    starts_at: datetime
    ends_at: datetime
    used: int = 0
    granted: int = 0
    excess: int = 0
    told: int = 0
    days: int = 0
    fresh_days: int = 0

    @property
    def charged(self) -> int:
        """The uses that count against the quota, whatever its limit was: those that no grant pays for."""
        return self.used - self.granted


@dataclass(frozen=True, slots=True)
class PublishedUse:
    """How much of a quota a subject had used when that was last published; the fields are the columns of the table.

    `charged` are the uses that no grant pays for.
    """

    agency_id: str
    subject_ref: str
    feature: str
    used: int
    charged: int
    quota: int
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class QuotaGrant:
    """Uses beyond the quota for a person or, if the reference is empty, for all people of the agency."""

    agency_id: str
    grant_id: str
    feature: str
    subject_ref: str
    amount: int
    spent: int
    priority: int
    starts_at: datetime
    ends_at: datetime | None

    @property
    def left(self) -> int:
        """The uses that it can still pay for."""
        return self.amount - self.spent

    def is_active(self, at: datetime) -> bool:
        """Whether it pays for a use at an instant."""
        return self.starts_at <= at and (self.ends_at is None or at < self.ends_at)


@dataclass(frozen=True, slots=True)
class Limit:
    """What limits the use of a feature in an agency: a quota, and the current period."""

    agency_id: str
    feature: str
    quota: Quota
    period: Period


@dataclass(frozen=True, slots=True)
class Used:
    """How much of a quota is used in the current period: of the person's own, or of the agency's.

    If the quota is used up, `changes_at` is when the rest next changes by itself: when a grant begins or ends.
    """

    used: int
    limit: int
    remaining: int
    resets_at: datetime
    changes_at: datetime | None = None

    @classmethod
    def of(cls, total: Sum, limit: Limit, grants: Sequence[QuotaGrant], now: datetime) -> "Used":
        """Derive it from the sum that the quota limits and the grants that pay for its uses."""
        changes_at = None
        if not free(limit.quota, total):
            instants = [instant for each in grants for instant in (each.starts_at, each.ends_at)]
            changes_at = min((each for each in instants if each is not None and each > now), default=None)
        left = available(limit.quota, total, grants, now)
        return cls(total.used, limit.quota.limit, left, limit.period.ends_at, changes_at)


async def use_of(
    limit: Limit, subject_refs: Iterable[str], sums: Mapping[str, Sum], grants: Iterable[QuotaGrant], now: datetime
) -> dict[str, Used]:
    """How much of a quota people used, and how much it leaves them, by reference.

    `sums` are those that the quota limits, by subject. `grants` are those that may pay for their uses.
    """
    own: defaultdict[str, list[QuotaGrant]] = defaultdict(list)
    for grant in grants:
        own[grant.subject_ref].append(grant)
    used = {}
    pace = Pace()
    for subject_ref, total in sums.items():
        await pace.keep()
        paying = [grant for who in {subject_ref, WHOLE_AGENCY} for grant in own[who]]
        used[subject_ref] = Used.of(total, limit, paying, now)
    return {subject_ref: used[whose(limit.quota, subject_ref)] for subject_ref in subject_refs}


def least_told(quota: Quota) -> int:
    """The fewest charged uses at which a threshold is crossed or, without thresholds, the quota is used up."""
    percent = quota.thresholds[0] if quota.thresholds else 100
    return -(-percent * quota.limit // 100)


def whose(quota: Quota, subject_ref: str) -> str:
    """The subject whose sum a quota limits."""
    return subject_ref if quota.per is QuotaScope.SEAT else WHOLE_AGENCY


def free(quota: Quota, total: Sum) -> int:
    """The uses left of the period's quota, without grants."""
    return max(0, quota.limit - total.charged)


def available(quota: Quota, total: Sum, grants: Sequence[QuotaGrant], at: datetime) -> int:
    """The uses left of the period's quota and of the active grants."""
    return free(quota, total) + sum(grant.left for grant in grants if grant.is_active(at))


def _calendar_month(at: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    local = at.astimezone(zone)
    starts_at = _month_start(local.year, local.month, zone)
    if at < starts_at:  # the clocks go back at midnight: the month starts at the second of two midnights
        return _month_start(local.year, local.month - 1, zone), starts_at
    return starts_at, _month_start(local.year, local.month + 1, zone)


@lru_cache(maxsize=10_000)
def _month_start(year: int, month: int, zone: ZoneInfo) -> datetime:
    """The start of a month in UTC; months 0 and 13 belong to the year before and the year after."""
    years, month = divmod(month - 1, 12)
    first = datetime(year + years, month + 1, 1)  # noqa: DTZ001 - local time, which the zone resolves to an instant
    return resolve(first, zone)


def _rolling_month(at: datetime, anchor: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The month that contains an instant, in months counted from the anchor."""
    months = months_between(anchor, at, zone)
    return months_later(anchor, months, zone), months_later(anchor, months + 1, zone)

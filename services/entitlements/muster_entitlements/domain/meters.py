"""Meters: how an agency's use counts, according to its windows, feature grants, and seat trials."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from muster_contracts.entitlements import AccessMode, QuotaScope
from muster_entitlements.domain.catalog import Feature, Quota
from muster_entitlements.domain.grants import Grant, holding
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.quotas import Period
from muster_entitlements.domain.windows import Window


class Terms(NamedTuple):
    """How a use counts: in which period, and against which quota; None for no limit.

    `given`: a grant or the seat's trial allows it without a quota, so it is added to the sums but charged to no quota.
    `apart`: a grant's own quota limits it, so it is not charged to a quota of the whole agency.
    """

    period: Period
    quota: Quota | None
    given: bool = False
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits on the use of a feature, and the period in which it counts; None for no limit.

    `of_each` is the lowest limit that applies to every person; a person's own grant may set a lower one. `of_all` is
    the agency's limit.
    """

    period: Period
    of_each: int | None
    of_all: int | None


@dataclass(frozen=True, slots=True)
class Meter:
    """What decides how an agency's use counts: its time zone, and the windows of its enrollment by feature.

    `term_ends_at` is the end of the enrollment's term, which a renewal may still extend; None without an enrollment.
    `features` has each feature in the catalog version that the agency's window follows. `grants` has the feature grants
    by feature and subject, None for the whole agency. `begun` has the starts of seats' trials by subject.
    """

    zone: ZoneInfo
    windows: Mapping[str, Window]
    features: Mapping[str, Feature]
    grants: Mapping[tuple[str, str | None], Sequence[Grant]] = field(default_factory=dict)
    begun: Mapping[str, datetime] = field(default_factory=dict)
    term_ends_at: datetime | None = None
    _latest: dict[tuple[str, AccessMode | None], Terms] = field(default_factory=dict, init=False, compare=False)
    """The last terms found for a feature. In their period, they apply to all who have this access without a grant."""

    def terms(self, feature: Feature, subject_ref: str, at: datetime) -> Terms:
        """How a person's use at an instant counts."""
        began_at = self.begun.get(subject_ref)
        if self.grants and (grants := self._grants(feature.key, subject_ref)):
            return self.at(feature, at, grants, began_at)
        window = self.windows.get(feature.key)
        access = None if window is None else window.access(at, began_at)
        latest = self._latest.get((feature.key, access))
        if latest is None or not latest.period.starts_at <= at < latest.period.ends_at:
            latest = self._latest[feature.key, access] = self.at(feature, at, (), began_at)
        return latest

    def at(
        self, feature: Feature, at: datetime, grants: Iterable[Grant] = (), began_at: datetime | None = None
    ) -> Terms:
        """How a use counts for a person with these grants, whose seat's trial began at `began_at`.

        A grant takes precedence over the window, and the person's grant over the agency's.
        """
        window = self.windows.get(feature.key)
        period = self._period(feature, at)
        if (grant := holding(grants, at)) is not None:
            quota = None if grant.monthly_quota is None else Quota(limit=grant.monthly_quota)
            return Terms(period, quota, given=quota is None, apart=quota is not None)
        if window is None:
            return Terms(period, None)
        limited = window.access(at, began_at) is AccessMode.QUOTA
        given = not limited and window.seat_days is not None
        return Terms(period, feature.stated_quota if limited else None, given)

    def other_limit(self, key: str, subject_ref: str, at: datetime, now: datetime) -> int | None:
        """The limit of the person's use now, if another grant decided at an earlier instant of the period, or none did.

        None if the same one did, or if no quota per seat applies now.
        """
        grants = self._grants(key, subject_ref)
        if not grants or holding(grants, at) is holding(grants, now):
            return None
        period, quota, *_ = self.at(self.features[key], now, grants, self.begun.get(subject_ref))
        if quota is None or quota.per is not QuotaScope.SEAT or not period.starts_at <= at < period.ends_at:
            return None
        return quota.limit

    def _grants(self, key: str, subject_ref: str) -> list[Grant]:
        return [each for who in (subject_ref, None) for each in self.grants.get((key, who), ())]

    def period(self, key: str, at: datetime) -> Period:
        """The period in which a use of a feature at an instant counts."""
        feature = self.features.get(key)
        return self._period(feature, at) if feature else Period.of(at, None, self.windows.get(key), self.zone)

    def _period(self, feature: Feature, at: datetime) -> Period:
        window = self.windows.get(feature.key)
        reopens = window is not None and window.trial and feature.trial is None  # for the term, once the grace is over
        renews = window is not None and window.follows_term and window.ends_at == self.term_ends_at
        return Period.of(at, feature.stated_quota, window, self.zone, reopens=reopens, renews=renews)

    def limits(self, feature: Feature, at: datetime, grants: Iterable[Grant]) -> Limits:
        """The limits at an instant for an agency with these grants of the feature."""
        period, quota, *_ = self.at(feature, at)
        window = self.windows.get(feature.key)
        if window is not None and window.seat_days is not None:
            quota = feature.stated_quota  # it limits some seats, during their trials or after
        shared = quota is not None and quota.per is QuotaScope.AGENCY
        of_each = [grant.monthly_quota for grant in grants if grant.subject_ref is None and grant.holds(at)]
        of_each += [quota.limit] if quota and not shared else []
        return Limits(
            period=period,
            of_each=min((limit for limit in of_each if limit is not None), default=None),
            of_all=quota.limit if quota and shared else None,
        )


def restarts_quota(pool: Pool, feature: Feature, before: Window, after: Window, now: datetime) -> bool:
    """Whether a decision about a window lets another period replace the current one of a quota before that one ends."""
    was, will = (Meter(pool.zone, {feature.key: each}, {}, term_ends_at=pool.ends_at) for each in (before, after))
    instants = [at for at in (now, after.starts_at, after.closes_at()) if at >= now]
    found = [(was.at(feature, at), will.at(feature, at)) for at in instants]
    return any(
        stays.period.starts_at <= now and stays.period.starts_at != comes.period.starts_at
        for stays, comes in found
        if stays.quota is not None and comes.quota is not None
    )

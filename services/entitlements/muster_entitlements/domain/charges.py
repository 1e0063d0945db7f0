"""Charging: how much of a use the quota pays for, and how much the quota grants do."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import NamedTuple

from muster_entitlements.domain.catalog import Quota
from muster_entitlements.domain.quotas import EXCEEDED, WHOLE_AGENCY, QuotaGrant, Sum, free


class DatedUse(NamedTuple):
    """Uses at one instant, and the quota that limits them; None for no limit."""

    at: datetime
    amount: int
    quota: Quota | None


@dataclass(frozen=True, slots=True)
class Limited:
    """A sum before new uses, and these uses; a quota limits at least some of them."""

    total: Sum
    uses: Sequence[DatedUse]


@dataclass(frozen=True, slots=True)
class Charge:
    """New uses that a quota limits: the sum before them, their number, and the instant of the last one."""

    quota: Quota
    total: Sum
    amount: int
    at: datetime

    def paid_by(self, grants: Sequence[QuotaGrant]) -> "Count":
        """Count the uses. The quota pays first, then the grants by priority, end, and ID. The rest is excess."""
        quota, total = self.quota, self.total
        above = rest = max(0, self.amount - free(quota, total))
        spent = []
        for grant in sorted(grants, key=_order):
            part = min(rest, grant.left) if grant.is_active(self.at) else 0
            if part:
                spent.append(replace(grant, spent=grant.spent + part))
                rest -= part
        used, granted = total.used + self.amount, total.granted + above - rest
        thresholds = quota.thresholds if quota.limit else ()  # with a limit of 0, any use would cross them all
        reached = (used - granted) * 100
        crossed = [percent for percent in thresholds if total.told < percent and reached >= percent * quota.limit]
        exceeded = rest > 0 and not total.excess
        told = EXCEEDED if rest and quota.limit else max([total.told, *crossed])
        after = total._replace(used=used, granted=granted, excess=total.excess + rest, told=told)
        used_up = free(quota, total) > 0 and not free(quota, after)
        return Count(after, spent, crossed, exceeded, above, rest, used_up)


@dataclass(frozen=True, slots=True)
class Count:
    """A sum after new uses, the grants that paid for some of them, and what to publish.

    `above` is the number of uses that the quota did not pay for, `excess` those that nothing paid for. `used_up`: the
    uses took the rest of the quota.
    """

    total: Sum
    spent: Sequence[QuotaGrant]
    thresholds: Sequence[int]
    exceeded: bool
    above: int
    excess: int
    used_up: bool

    @property
    def tells(self) -> bool:
        """Whether to publish the use to snapshot copies: a threshold was crossed, or the quota is used up."""
        return self.used_up or self.exceeded or bool(self.thresholds)


def charge_in_time(limited: Sequence[Limited], grants: Sequence[QuotaGrant]) -> list[list[tuple[Charge, Count]]]:
    """Charge the new uses of several sums in order of time, because sums may share grants.

    Returns the charges of each sum. Successive uses of a sum under one quota are charged together, unless a grant
    begins or ends between them. Uses that no quota limits are only added to the sum, so a later quota counts them.
    """
    instants = sorted({at for grant in grants for at in (grant.starts_at, grant.ends_at) if at is not None})
    payers: defaultdict[tuple[str, str, str], dict[str, QuotaGrant]] = defaultdict(dict)
    for grant in grants:
        payers[grant.agency_id, grant.feature, grant.subject_ref][grant.grant_id] = grant
    totals = [each.total for each in limited]
    counted: list[list[tuple[Charge, Count]]] = [[] for _ in limited]
    uses = ((place, use) for place, each in enumerate(limited) for use in each.uses)
    in_time = sorted(uses, key=lambda placed: placed[1].at)
    for (place, quota, _), alike in groupby(in_time, lambda placed: _together(placed, instants)):
        together = [use for _, use in alike]
        total, amount = totals[place], sum(use.amount for use in together)
        if quota is None:
            totals[place] = total._replace(used=total.used + amount)
            continue
        charge = Charge(quota, total, amount, together[-1].at)
        whose = {total.subject_ref, WHOLE_AGENCY}  # a grant to the whole agency pays for anyone's use
        count = charge.paid_by([each for who in whose for each in payers[total.agency_id, total.feature, who].values()])
        for grant in count.spent:
            payers[grant.agency_id, grant.feature, grant.subject_ref][grant.grant_id] = grant
        totals[place] = count.total
        counted[place].append((charge, count))
    return counted


def _together(placed: tuple[int, DatedUse], instants: Sequence[datetime]) -> tuple[int, Quota | None, int]:
    place, use = placed
    return place, use.quota, bisect_right(instants, use.at)


def _order(grant: QuotaGrant) -> tuple[int, datetime, str]:
    return grant.priority, grant.ends_at or datetime.max.replace(tzinfo=UTC), grant.grant_id

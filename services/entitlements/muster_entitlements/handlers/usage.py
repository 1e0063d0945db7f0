"""Counts reported use in batches. Each event counts once, and an invalid event does not affect the others."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from muster_contracts.entitlements import QuotaScope
from muster_entitlements.domain.adoption import bit_of
from muster_entitlements.domain.catalog import MOST_EXACT, Catalog, Quota, is_key
from muster_entitlements.domain.charges import DatedUse, Limited
from muster_entitlements.domain.meters import Meter, Terms
from muster_entitlements.domain.quotas import WHOLE_AGENCY, Sum, least_told
from muster_entitlements.domain.usage import OLDEST, Identity, Use, check_open, check_time
from muster_entitlements.handlers.adoption import FirstUse, count_adoption
from muster_entitlements.handlers.quota_terms import tell_uses_next
from muster_entitlements.handlers.quotas import charge_quotas
from muster_entitlements.handlers.uses import record_uses
from muster_entitlements.repository import catalogs, usage
from muster_entitlements.repository.meters import find_meters
from muster_entitlements.repository.seat_uses import FeatureUser, SeatUse
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import InvalidInput
from muster_runtime.pacing import Pace
from muster_runtime.text import did_you_mean

# For how many unknown features of a report to look for the nearest ones.
MOST_NEAREST = 10

# What identifies a sum: the agency, the feature, the subject, and the start of the period.
Counter = tuple[str, str, str, datetime]


@dataclass(slots=True)
class Nearest:
    """The features nearest to unknown ones. A report may have thousands of those, and each takes milliseconds."""

    _found: dict[str, str] = field(default_factory=dict)

    def refuse(self, feature: str, catalog: Catalog) -> InvalidInput:
        """The refusal of an unknown feature. For the first ones, it names the nearest features."""
        if feature not in self._found and len(self._found) < MOST_NEAREST:
            self._found[feature] = did_you_mean(catalog.nearest(feature))
        return InvalidInput("data.feature", feature, f"must be a feature of the catalog{self._found.get(feature, '')}")


@dataclass(slots=True)
class Tally:
    """The outcome of reported uses: how many were counted, or had been before, and the refusals by place."""

    counted: int = 0
    repeated: int = 0
    refused: dict[int, InvalidInput] = field(default_factory=dict)

    def add(self, other: "Tally") -> None:
        """Add the outcome of other uses of the same report."""
        self.counted += other.counted
        self.repeated += other.repeated
        self.refused |= other.refused


class _Metered(NamedTuple):
    """A use, its place in the report, how it counts, and its day as a bit."""

    place: int
    use: Use
    terms: Terms
    day: int


@dataclass(slots=True)
class _Addition:
    """What is added to one sum. If quotas limit any of it, `charged` has all uses that are not given."""

    ends_at: datetime
    used: int = 0
    given: int = 0
    days: int = 0
    charged: list[DatedUse] = field(default_factory=list)

    def add(self, use: Use, quota: Quota | None, *, given: bool) -> None:
        """Add a use that a quota limits, that is `given`, or neither. Add the limited ones first."""
        self.used += use.amount
        if given:
            self.given += use.amount
        elif quota is not None or self.charged:
            self.charged.append(DatedUse(use.at, use.amount, quota))


async def count_uses(
    uow: UnitOfWork, uses: Mapping[int, Use], nearest: Nearest, arrived: Mapping[int, datetime] | None = None
) -> Tally:
    """Count uses, by their place in the report, of agencies that the unit of work has locked.

    `arrived` says when those that had to wait arrived: what was in time then still counts.
    """
    tally, arrived = Tally(), arrived or {}
    people: defaultdict[str, set[str]] = defaultdict(set)
    features: defaultdict[str, set[str]] = defaultdict(set)
    for use in uses.values():
        people[use.agency_id].add(use.subject_ref)
        features[use.agency_id].add(use.feature)
    catalog = await catalogs.find_catalog(uow.connection, uow.now)
    asked = [(agency_id, feature) for agency_id, own in features.items() for feature in own if is_key(feature)]
    since = min(arrived.values(), default=uow.now) - OLDEST
    meters = await find_meters(uow.connection, people, since, catalog, asked)
    metered, tally.refused = await _meter_all(uses, catalog, meters, nearest, uow.now, arrived)
    new = await _new(uow, metered, tally)
    tally.counted = len(new)
    if new:
        await _add(uow, new, meters)
    return tally


def stranger(use: Use) -> InvalidInput:
    """The refusal of a use of an agency that was never enrolled. No transaction takes such an agency's lock."""
    return InvalidInput("data.agency_id", use.agency_id, "must be an agency that has been enrolled")


async def _meter_all(
    uses: Mapping[int, Use],
    catalog: Catalog,
    meters: Mapping[str, Meter],
    nearest: Nearest,
    now: datetime,
    arrived: Mapping[int, datetime],
) -> tuple[list[_Metered], dict[int, InvalidInput]]:
    """The uses that count, and how; and, by place, why the others are refused."""
    metered: list[_Metered] = []
    refused: dict[int, InvalidInput] = {}
    pace = Pace()
    for place, use in uses.items():
        try:
            arrived_at = arrived.get(place, now)
            check_time(use.at, now, arrived_at)
            metered.append(_meter(place, use, catalog, meters, nearest, arrived_at))
        except InvalidInput as refusal:
            refused[place] = refusal
        await pace.keep()
    return metered, refused


def _meter(
    place: int, use: Use, catalog: Catalog, meters: Mapping[str, Meter], nearest: Nearest, arrived_at: datetime
) -> _Metered:
    """The use, and how it counts. Raises InvalidInput."""
    meter = meters.get(use.agency_id)
    if meter is None:
        raise stranger(use)
    feature = meter.features.get(use.feature)
    if feature is None:
        raise nearest.refuse(use.feature, catalog)
    terms = meter.terms(feature, use.subject_ref, use.at)
    check_open(use.at, terms.period.ends_at, arrived_at)
    return _Metered(place, use, terms, bit_of(use.at.astimezone(meter.zone)))


async def _new(uow: UnitOfWork, metered: Sequence[_Metered], tally: Tally) -> list[_Metered]:
    """The uses that were not counted before. A different event under an ID that was counted is refused."""
    first: dict[Identity, _Metered] = {}
    again = [each for each in metered if first.setdefault(each.use.identity, each) is not each]
    if not first:
        return []
    known = await usage.add_seen(uow.connection, {event: each.use for event, each in first.items()})
    again += [first.pop(event) for event in known]
    if again:
        contents = await usage.find_contents(uow.connection, [each.use for each in again])
        for each in again:
            if contents.get(each.use.identity, each.use.content) == each.use.content:
                tally.repeated += 1
            else:
                tally.refused[each.place] = InvalidInput(
                    "id",
                    each.use.name,
                    "must be new for its source: another event with this source and ID was counted",
                )
    return list(first.values())


async def _add(uow: UnitOfWork, new: Sequence[_Metered], meters: Mapping[str, Meter]) -> None:
    """Add the uses to the sums of their subjects and agencies; then record them, count adoption, and charge quotas."""
    additions = _additions(new)
    sums = [Sum(*counter, each.ends_at, each.used, each.given, days=each.days) for counter, each in additions.items()]
    limits = _other_limits(new, meters, uow.now)
    least, limited, fresh, untold = min([_least_told(additions), *limits.values()]), [], [], set()
    for total in await usage.add_to_sums(uow.connection, sums, least):
        counter = total.agency_id, total.feature, total.subject_ref, total.starts_at
        addition = additions[counter]
        if addition.charged and total.charged >= least:
            before = total._replace(used=total.used - sum(each.amount for each in addition.charged))
            limited.append(Limited(before, addition.charged))
        if counter in limits and total.charged >= limits[counter]:
            untold.add((total.agency_id, total.subject_ref))
        if total.fresh_days:
            fresh.append(total)
    adopted = await record_uses(uow, _last_uses(new), "ReportUsage")
    await count_adoption(uow, fresh, _first_uses(adopted, new), {each: meter.zone for each, meter in meters.items()})
    await charge_quotas(uow, limited)
    tell_uses_next(uow, untold)


def _last_uses(new: Sequence[_Metered]) -> dict[FeatureUser, datetime]:
    """When each person last used each feature."""
    last: dict[FeatureUser, datetime] = {}
    for _, use, _, _ in new:
        user = use.agency_id, use.feature, use.subject_ref
        if last.setdefault(user, use.at) < use.at:
            last[user] = use.at
    return last


def _first_uses(adopted: Sequence[SeatUse], new: Sequence[_Metered]) -> list[FirstUse]:
    """When people used a feature for the first time with their seats."""
    instants: dict[FeatureUser, list[datetime]] = {each.user: [] for each in adopted}
    for _, use, _, _ in new if adopted else ():
        user = use.agency_id, use.feature, use.subject_ref
        if user in instants:
            instants[user].append(use.at)
    return [FirstUse.of(each, instants[each.user]) for each in adopted]


def _additions(new: Sequence[_Metered]) -> dict[Counter, _Addition]:
    """What the uses add to the sums of their people and agencies."""
    alike: dict[tuple[str, str, int], list[_Metered]] = {}  # most share one object of terms
    for each in new:
        alike.setdefault((each.use.agency_id, each.use.feature, id(each.terms)), []).append(each)
    additions: dict[Counter, _Addition] = {}
    limited_first = sorted(alike.items(), key=lambda item: _is_limited(item[1][0].terms), reverse=True)
    for (agency_id, feature, _), uses in limited_first:
        period, quota, given, apart = uses[0].terms
        per_seat = quota if quota is not None and quota.per is QuotaScope.SEAT else None
        of_all = None if per_seat else quota
        whole = additions.setdefault((agency_id, feature, WHOLE_AGENCY, period.starts_at), _Addition(period.ends_at))
        for _, use, _, day in uses:
            counter = agency_id, feature, use.subject_ref, period.starts_at
            addition = additions.get(counter)
            if addition is None:
                additions[counter] = addition = _Addition(period.ends_at)
            addition.add(use, per_seat, given=given)
            addition.days |= day
            whole.add(use, of_all, given=given or apart)
    return additions


def _is_limited(terms: Terms) -> tuple[bool, bool]:
    """Whether a quota limits the person's sum, and whether one limits any sum."""
    return terms.quota is not None and terms.quota.per is QuotaScope.SEAT, terms.quota is not None


def _least_told(additions: Mapping[Counter, _Addition]) -> int:
    """The fewest charged uses at which there may be something to publish about any of the sums."""
    quotas = {id(use.quota): use.quota for each in additions.values() for use in each.charged}
    return min((least_told(quota) for quota in quotas.values() if quota is not None), default=MOST_EXACT)


def _other_limits(new: Sequence[_Metered], meters: Mapping[str, Meter], now: datetime) -> dict[Counter, int]:
    """The limits that apply now to people's sums of the current period, but not to late uses that are charged to them.

    Charging such a use publishes nothing about them.
    """
    granted = {agency_id for agency_id, meter in meters.items() if meter.grants}
    limits: dict[Counter, int] = {}
    for _, use, terms, _ in new if granted else ():
        if use.agency_id in granted and not terms.given:
            limit = meters[use.agency_id].other_limit(use.feature, use.subject_ref, use.at, now)
            if limit is not None:
                limits[use.agency_id, use.feature, use.subject_ref, terms.period.starts_at] = limit
    return limits

"""Counts adoption together with use, and publishes a summary of each day."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from muster_entitlements.domain.adoption import days_of, gains
from muster_entitlements.domain.days import DAY, day_until, end_of_day
from muster_entitlements.domain.quotas import Sum
from muster_entitlements.publishing.adoption import adoption_summarized
from muster_entitlements.repository import adoption, catalogs, pools
from muster_entitlements.repository.adoption import Day, Gain
from muster_entitlements.repository.seat_uses import FeatureUser, SeatUse
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

ADOPTION_SUMMARIZED = "adoption-summarized"

# Use up to 28 days before the oldest that still counts matters, and its period began up to a month before it.
_LOOK_BACK = timedelta(days=100)

_COUNTERS = {1: "active", 7: "active_7_days", 28: "active_28_days"}


class FirstUse(NamedTuple):
    """The first use of a feature with a seat, and when it was."""

    use: SeatUse
    at: datetime

    @classmethod
    def of(cls, use: SeatUse, instants: Iterable[datetime]) -> "FirstUse":
        """It was at the first of these instants since the assignment; in that same second, at the assignment."""
        got = use.assigned_at
        return cls(use, max(got, min((at for at in instants if at >= got.replace(microsecond=0)), default=got)))


async def count_adoption(
    uow: UnitOfWork, fresh: Sequence[Sum], adopted: Sequence[FirstUse], zones: Mapping[str, ZoneInfo]
) -> None:
    """Count the new days of use in people's sums, and the features adopted; `zones` has the agencies' time zones."""
    grown: defaultdict[Day, Gain] = defaultdict(Gain)
    if fresh:
        await _count_active(uow, fresh, zones, grown)
    if adopted:
        _count_first_uses(uow, adopted, zones, grown)
    if grown:
        uow.writes.add(adoption.add_gains(grown))
    for agency_id in {total.agency_id for total in fresh}:
        _schedule(uow, agency_id, uow.now.astimezone(zones[agency_id]).date(), zones[agency_id])


async def _count_active(
    uow: UnitOfWork, totals: Sequence[Sum], zones: Mapping[str, ZoneInfo], grown: defaultdict[Day, Gain]
) -> None:
    """Count active people by the new days of use in their sums."""
    used: defaultdict[FeatureUser, set[int]] = defaultdict(set)
    fresh: defaultdict[FeatureUser, set[int]] = defaultdict(set)
    added = {(total.agency_id, total.feature, total.subject_ref, total.starts_at): total for total in totals}
    for known in await adoption.find_used_days(uow.connection, totals, uow.now - _LOOK_BACK):
        person = known.agency_id, known.feature, known.subject_ref
        first = known.starts_at.astimezone(zones[known.agency_id]).date()
        total = added.get((*person, known.starts_at))
        new = total.fresh_days if total else 0
        used[person].update(days_of(known.days & ~new, first))
        fresh[person].update(days_of(new, first))
    for person, days in fresh.items():
        agency_id, feature, _ = person
        for (day, span), people in gains(used[person], days).items():
            gain = grown[agency_id, feature, date.fromordinal(day)]
            setattr(gain, _COUNTERS[span], getattr(gain, _COUNTERS[span]) + people)


def _count_first_uses(
    uow: UnitOfWork, adopted: Sequence[FirstUse], zones: Mapping[str, ZoneInfo], grown: defaultdict[Day, Gain]
) -> None:
    """Count people who use a feature for the first time with their seats."""
    features: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    adopters: Counter[tuple[str, str, int]] = Counter()
    for use, at in adopted:
        agency_id, feature, _ = use.user
        zone = zones[agency_id]
        day = at.astimezone(zone).date()
        features[agency_id, use.seat.seat_id].add(feature)
        adopters[agency_id, feature, use.generation] += 1
        gain = grown[agency_id, feature, day]
        gain.first_uses += 1
        gain.first_use_days += (day - use.assigned_at.astimezone(zone).date()).days
    uow.writes.add(adoption.save_used_features(features), adoption.add_adopters(adopters))


async def on_adoption_summarized_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Publish the summary of the day that ends at each deadline, and schedule the next while features are in use."""
    for deadline in due:
        pool = await pools.find_pool(uow.connection, deadline.agency_id)
        assert pool is not None  # it has use
        day = day_until(deadline.due_at, pool.zone)
        features = (await catalogs.find_catalog(uow.connection, uow.now)).features
        found = await adoption.find_adoption(uow.connection, pool, day, features)
        uow.publish(adoption_summarized(pool, day, list(found.values())), time=deadline.due_at)
        tomorrow = await adoption.find_adoption(uow.connection, pool, day + DAY, ())
        if not pool.is_over and any(each.active_28_days for each in tomorrow.values()):
            _schedule(uow, pool.agency_id, day + DAY, pool.zone)


async def move_summary(uow: UnitOfWork, agency_id: str, before: ZoneInfo, after: ZoneInfo) -> None:
    """Move the next summary of an agency whose time zone changes to the end of the same day in the new one."""
    key = ADOPTION_SUMMARIZED, agency_id, agency_id
    due_at = await deadlines.find_instant(uow.connection, *key)
    if due_at is not None:
        deadlines.schedule(uow, [Deadline(*key, end_of_day(day_until(due_at, before), after))])


def _schedule(uow: UnitOfWork, agency_id: str, day: date, zone: ZoneInfo) -> None:
    deadlines.schedule_earlier(uow, Deadline(ADOPTION_SUMMARIZED, agency_id, agency_id, end_of_day(day, zone)))

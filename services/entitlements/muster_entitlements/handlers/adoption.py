"""Counts adoption with the uses, and publishes a summary of each day."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from muster_entitlements.domain.adoption import days_of, gains
from muster_entitlements.domain.days import DAY, day_until, end_of_day
from muster_entitlements.domain.quotas import Sum
from muster_entitlements.publishing.adoption import adoption_summarized
from muster_entitlements.repository import adoption, catalogs, pools
from muster_entitlements.repository.adoption import Gain, UserSeat
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

ADOPTION_SUMMARIZED = "adoption-summarized"

# A use of 28 days before the earliest that still counts matters, and lies in a period that began up to a month before.
_LOOK_BACK = timedelta(days=100)

# A person of an agency, and a feature.
Person = tuple[str, str, str]

_COUNTERS = {1: "active", 7: "active_7_days", 28: "active_28_days"}


async def count_days(uow: UnitOfWork, totals: Sequence[Sum], zones: Mapping[str, ZoneInfo]) -> None:
    """Count the days that sums of people have for the first time; `zones` are those of their agencies."""
    if not totals:
        return
    used: defaultdict[Person, set[int]] = defaultdict(set)
    fresh: defaultdict[Person, set[int]] = defaultdict(set)
    added = {(total.agency_id, total.feature, total.subject_ref, total.starts_at): total for total in totals}
    for known in await adoption.find_used_days(uow.connection, totals, uow.now - _LOOK_BACK):
        person = known.agency_id, known.feature, known.subject_ref
        first = known.starts_at.astimezone(zones[known.agency_id]).date()
        total = added.get((*person, known.starts_at))
        new = total.fresh_days if total else 0
        used[person].update(days_of(known.days & ~new, first))
        fresh[person].update(days_of(new, first))
    grown: defaultdict[adoption.Day, Gain] = defaultdict(Gain)
    for person, days in fresh.items():
        agency_id, feature, _ = person
        for (day, span), people in gains(used[person], days).items():
            gain = grown[agency_id, feature, date.fromordinal(day)]
            setattr(gain, _COUNTERS[span], getattr(gain, _COUNTERS[span]) + people)
    await _count_first_uses(uow, fresh, zones, grown)
    if grown:
        uow.writes.add(adoption.add_gains(grown))
    for agency_id in {total.agency_id for total in totals}:
        _schedule(uow, agency_id, uow.now.astimezone(zones[agency_id]).date(), zones[agency_id])


async def _count_first_uses(
    uow: UnitOfWork,
    fresh: Mapping[Person, set[int]],
    zones: Mapping[str, ZoneInfo],
    grown: defaultdict[adoption.Day, Gain],
) -> None:
    """Count those who use a feature for the first time with their seat, on the day they got it or later."""
    seats = await adoption.find_user_seats(uow.connection, {(agency_id, ref) for agency_id, _, ref in fresh})
    held: dict[tuple[str, str], UserSeat] = {(seat.agency_id, seat.subject_ref): seat for seat in seats}
    features: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    adopters: Counter[tuple[str, str, int]] = Counter()
    for (agency_id, feature, subject_ref), days in fresh.items():
        seat = held.get((agency_id, subject_ref))
        if seat is None or feature in seat.used_features:
            continue
        got = seat.assigned_at.astimezone(zones[agency_id]).toordinal()
        first = min((day for day in days if day >= got), default=None)
        if first is None:
            continue
        features[agency_id, seat.seat_id].add(feature)
        adopters[agency_id, feature, seat.generation] += 1
        gain = grown[agency_id, feature, date.fromordinal(first)]
        gain.first_uses += 1
        gain.first_use_days += first - got
    if features:
        uow.writes.add(adoption.save_used_features(features), adoption.add_adopters(adopters))


async def on_adoption_summarized_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Publish the summary of the day that ends with each deadline; the next is due while features are in use."""
    for deadline in due:
        pool = await pools.find_pool(uow.connection, deadline.agency_id)
        assert pool is not None  # it has use
        day = day_until(deadline.due_at, pool.zone)
        features = (await catalogs.find_catalog(uow.connection, uow.now)).features
        found = await adoption.find_adoption(uow.connection, pool, day, features)
        uow.publish(adoption_summarized(pool, day, list(found.values())), time=deadline.due_at)
        tomorrow = await adoption.find_adoption(uow.connection, pool, day + DAY, ())
        over = pool.ended or pool.withdrawn_at is not None
        if not over and any(each.active_28_days for each in tomorrow.values()):
            _schedule(uow, pool.agency_id, day + DAY, pool.zone)


def _schedule(uow: UnitOfWork, agency_id: str, day: date, zone: ZoneInfo) -> None:
    deadlines.schedule_earlier(uow, Deadline(ADOPTION_SUMMARIZED, agency_id, agency_id, end_of_day(day, zone)))

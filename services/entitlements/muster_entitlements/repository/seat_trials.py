"""The trials of seats: they end in the order in which they began.

A trial begins with a seat's first activation. It stays with the seat after a transfer. After a revocation, it stays
with the person, if they have activated the seat: their next seat has it from its first day.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from muster_entitlements.domain.seats import Seat
from muster_entitlements.domain.windows import Window
from muster_entitlements.repository.windows import COLUMNS, to_window
from muster_runtime.database.array_literals import array
from muster_runtime.database.transactions import Connection


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """How far the ends of trials are published: of all that began before `began_at`, and then up to `seat_id`."""

    began_at: datetime
    seat_id: str


@dataclass(frozen=True, slots=True)
class BegunTrial:
    """A held seat whose trial has begun."""

    seat_id: str
    subject_ref: str
    assigned_at: datetime
    began_at: datetime


class Activated(NamedTuple):
    """A seat as it was until its activation, when its trial began, and its unit.

    `anchors_windows`: at least one of its agency's windows is anchored on seats.
    """

    seat: Seat
    began_at: datetime
    anchors_windows: bool
    unit: str | None


async def list_seat_windows(connection: Connection, agency_id: str) -> list[Window]:
    """The windows of an agency's enrollment that are anchored on seats."""
    rows = await connection.fetch(
        f"""
        select {COLUMNS}
        from pool as p
        join feature_window as w on w.agency_id = p.agency_id and w.enrollment_id = p.enrollment_id
        where p.agency_id = $1 and w.seat_days is not null
        order by w.feature
        """,  # noqa: S608
        agency_id,
    )
    return [to_window(row) for row in rows]


async def find_place(connection: Connection, window: Window) -> Place:
    """How far a window's trials are published."""
    row = await connection.fetchrow(
        """
        select coalesce(seats_begun_at, starts_at) as began_at, seats_through as seat_id
        from feature_window
        where agency_id = $1 and enrollment_id = $2 and feature = $3
        """,
        window.agency_id,
        window.enrollment_id,
        window.feature,
    )
    assert row is not None  # the window was read under the agency's lock
    return Place(**row)


async def save_place(connection: Connection, window: Window, place: Place) -> None:
    """Store how far a window's trials are published."""
    await connection.execute(
        """
        update feature_window
        set seats_begun_at = $4, seats_through = $5
        where agency_id = $1 and enrollment_id = $2 and feature = $3
        """,
        window.agency_id,
        window.enrollment_id,
        window.feature,
        place.began_at,
        place.seat_id,
    )


async def list_begun(
    connection: Connection, agency_id: str, after: Place, until: datetime, limit: int
) -> list[BegunTrial]:
    """The held seats whose trials began after a place and until an instant, in that order."""
    rows = await connection.fetch(
        """
        select seat_id, subject_ref, assigned_at, coalesce(trial_began_at, activated_at) as began_at
        from seat
        where
            agency_id = $1 and coalesce(trial_began_at, activated_at) is not null
            and (coalesce(trial_began_at, activated_at), seat_id) > ($2, $3)
            and coalesce(trial_began_at, activated_at) <= $4
            and state <> 'revoked' and generation = (select generation from pool where agency_id = $1)
        order by coalesce(trial_began_at, activated_at), seat_id
        limit $5
        """,
        agency_id,
        after.began_at,
        after.seat_id,
        until,
        limit,
    )
    return [BegunTrial(**row) for row in rows]


async def find_next_start(connection: Connection, agency_id: str, after: Place) -> datetime | None:
    """When the first trial of a held seat after a place began; None if there is none."""
    began_at: datetime | None = await connection.fetchval(
        """
        select coalesce(trial_began_at, activated_at)
        from seat
        where
            agency_id = $1 and coalesce(trial_began_at, activated_at) is not null
            and (coalesce(trial_began_at, activated_at), seat_id) > ($2, $3)
            and state <> 'revoked' and generation = (select generation from pool where agency_id = $1)
        order by coalesce(trial_began_at, activated_at), seat_id
        limit 1
        """,
        agency_id,
        after.began_at,
        after.seat_id,
    )
    return began_at


async def count_begun(connection: Connection, agency_id: str, since: datetime, before: datetime) -> int:
    """The number of held seats whose trials began within [since, before)."""
    count: int = await connection.fetchval(
        """
        select count(*)
        from seat
        where
            agency_id = $1 and coalesce(trial_began_at, activated_at) is not null
            and coalesce(trial_began_at, activated_at) >= $2 and coalesce(trial_began_at, activated_at) < $3
            and state <> 'revoked' and generation = (select generation from pool where agency_id = $1)
        """,
        agency_id,
        since,
        before,
    )
    return count


async def find_begun(
    connection: Connection, people: Mapping[str, Collection[str]]
) -> defaultdict[str, dict[str, datetime]]:
    """When the trials of these people's seats began, by agency and subject. Trials that have not begun are left out."""
    rows = await connection.fetch(
        """
        select s.agency_id, s.subject_ref, coalesce(s.trial_began_at, s.activated_at) as began_at
        from unnest($1::text[], $2::text[]) as u (agency_id, subject_ref)
        join pool as p on p.agency_id = u.agency_id
        join seat as s
            on s.agency_id = u.agency_id and s.subject_ref = u.subject_ref and s.generation = p.generation
        where s.state <> 'revoked' and coalesce(s.trial_began_at, s.activated_at) is not null
        """,
        [agency_id for agency_id, subject_refs in people.items() for _ in subject_refs],
        [subject_ref for subject_refs in people.values() for subject_ref in subject_refs],
    )
    begun: defaultdict[str, dict[str, datetime]] = defaultdict(dict)
    for row in rows:
        begun[row["agency_id"]][row["subject_ref"]] = row["began_at"]
    return begun


async def find_earlier(connection: Connection, agency_id: str, subject_refs: Collection[str]) -> dict[str, datetime]:
    """When these people's trials began with earlier seats, by subject. People whose trial has not begun are left out.

    If no trial of the agency has begun, as in an import of all its people, it searches for no person.
    """
    rows = await connection.fetch(
        """
        select subject_ref, min(began_at) as began_at
        from (
            select subject_ref, coalesce(trial_began_at, activated_at) as began_at
            from seat
            where
                agency_id = $1 and subject_ref = any(string_to_array($2, E'\n'))
                and coalesce(trial_began_at, activated_at) is not null and activated_at is not null
                and exists(
                    select from seat as begun
                    where begun.agency_id = $1 and coalesce(begun.trial_began_at, begun.activated_at) is not null
                )
            union all
            select subject_ref, began_at
            from seat_trial
            where
                agency_id = $1 and subject_ref = any(string_to_array($2, E'\n'))
                and exists(select from seat_trial as lost where lost.agency_id = $1)
        ) as earlier
        group by subject_ref
        """,
        agency_id,
        "\n".join(subject_refs),
    )
    return {row["subject_ref"]: row["began_at"] for row in rows}


async def save_activated(connection: Connection, seats: Sequence[Seat], now: datetime) -> list[Activated]:
    """Set seats of different people to active; returns them in the same order.

    A trial began with the first activation of its seat, or with that of an earlier seat of its person: neither gets a
    second trial.
    """
    rows = await connection.fetch(
        """
        update seat as s
        set
            state = 'active', activated_at = $3, invited_until = null, idle_since = $4, idle_reclaim_at = null,
            trial_began_at = least(
                s.trial_began_at,
                $3,
                (
                    select min(coalesce(earlier.trial_began_at, earlier.activated_at))
                    from seat as earlier
                    where
                        earlier.agency_id = s.agency_id and earlier.subject_ref = s.subject_ref
                        and coalesce(earlier.trial_began_at, earlier.activated_at) is not null
                        and earlier.activated_at is not null
                ),
                (
                    select lost.began_at
                    from seat_trial as lost
                    where lost.agency_id = s.agency_id and lost.subject_ref = s.subject_ref
                )
            )
        from unnest($1::text::text[], $2::text::text[]) as u (agency_id, seat_id)
        where s.agency_id = u.agency_id and s.seat_id = u.seat_id
        returning
            s.agency_id,
            s.seat_id,
            s.trial_began_at,
            exists(
                select from pool as p
                join feature_window as w on w.agency_id = p.agency_id and w.enrollment_id = p.enrollment_id
                where p.agency_id = s.agency_id and w.seat_days is not null
            ) as anchors_windows,
            s.unit
        """,
        array(seat.agency_id for seat in seats),
        array(seat.seat_id for seat in seats),
        now,
        now.date(),
    )
    saved = {(agency_id, seat_id): rest for agency_id, seat_id, *rest in rows}
    return [Activated(seat, *saved[seat.agency_id, seat.seat_id]) for seat in seats]


async def add_lost_trials(connection: Connection, agency_id: str, seat_ids: Sequence[str]) -> None:
    """Store the trials of people whose seats are about to be transferred to others: for each person, the earliest."""
    await connection.execute(
        """
        insert into seat_trial (agency_id, subject_ref, began_at)
        select agency_id, subject_ref, coalesce(trial_began_at, activated_at)
        from seat
        where
            agency_id = $1 and seat_id = any($2::text[]) and activated_at is not null
        on conflict (agency_id, subject_ref) do update set
            began_at = least(seat_trial.began_at, excluded.began_at)
        """,
        agency_id,
        seat_ids,
    )

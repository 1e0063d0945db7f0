"""Seats' trials that all end at one instant, one event each, compared with a set-based update of as many rows."""

from datetime import datetime, timedelta

import asyncpg

from muster_contracts import topics
from muster_contracts.entitlements import SeatTrialExpired
from muster_entitlements.handlers.seat_trials import SEAT_TRIAL_ENDS, on_seat_trial_ends_due
from muster_operator.topics import create_topics, delete_topics
from muster_runtime.clock import SystemClock
from tests.bench.deadlines import AHEAD, publications
from tests.bench.processes import span
from tests.bench.report import Measurement
from tests.bench.setting import AGENCIES, Setting, setting

TOPIC = topics()[SeatTrialExpired.topic]

TRIAL_DAYS = 30

_FILL = """
with pool as (
    insert into pool (agency_id, enrollment_id, starts_at, ends_at, cap, in_use)
    select agency_id, 'enr', now() - interval '70 days', now() + interval '200 days', $2, $2
    from unnest($1::text[]) as agency_id
    returning agency_id, starts_at, ends_at
),

windows as (
    insert into feature_window (
        agency_id, enrollment_id, feature, window_id, trial, mode, starts_at, ends_at, mode_after, anchor, seat_days
    )
    select
        agency_id, 'enr', 'canvas', 'win_' || agency_id, false, 'unlimited', starts_at, ends_at, 'none', 'seat', $3
    from pool
),

due as (
    insert into deadline (kind, agency_id, subject, due_at)
    select $4, agency_id, 'win_' || agency_id, now() + interval '1 day'
    from pool
)

insert into seat (agency_id, seat_id, subject_ref, state, assigned_at, activated_at, trial_began_at)
select
    ($1::text[])[n % cardinality($1::text[]) + 1], 'seat_' || lpad(to_hex(n), 32, '0'), 'sub_' || md5(n::text),
    'active', now(), now(), now()
from generate_series(0, $2::int - 1) as s (n)
"""


async def measure(seats: int) -> list[Measurement]:
    """The time from when the trials of this many seats of 44 agencies end until their events are acknowledged."""
    clock = SystemClock()
    async with setting() as own:
        await create_topics(own.kafka, own.topic_prefix, [TOPIC])
        try:
            await _fill(own, seats)
            due_at = (clock.now() + AHEAD).replace(microsecond=0)
            limit = await _move(own, due_at)
            with span() as ours:
                handlers = {SEAT_TRIAL_ENDS: on_seat_trial_ends_due}
                first, last = await publications(own, TOPIC.name, handlers, seats, due_at)
        finally:
            await delete_topics(own.kafka, [own.topic_prefix + TOPIC.name])
    return [
        Measurement("the trials' end to the first publication", first, None, "s", "under 1 s"),
        Measurement(
            f"the trials' end to the last of {seats:,} publications",
            last,
            limit,
            "s",
            "under 10 s",
            ours.cpu,
            peak_mebibytes=ours.peak_mebibytes,
        ),
    ]


async def _fill(own: Setting, seats: int) -> None:
    connection = await asyncpg.connect(own.access.admin_dsn, server_settings={"search_path": "entitlements"})
    await connection.execute(_FILL, AGENCIES, seats, TRIAL_DAYS, SEAT_TRIAL_ENDS)
    await connection.execute("vacuum analyze seat")
    await connection.close()


async def _move(own: Setting, due_at: datetime) -> float:
    """Let the trials end at an instant; return the seconds of a set-based update of all these seats."""
    connection = await asyncpg.connect(own.access.admin_dsn, server_settings={"search_path": "entitlements"})
    with span() as update:
        await connection.execute("update seat set trial_began_at = $1", due_at - timedelta(days=TRIAL_DAYS))
    await connection.execute("update deadline set due_at = $1", due_at)
    await connection.close()
    return update.wall

"""Use from Kafka compared with one aggregate statement per batch, in turn; then consuming."""

import asyncio
import gc
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from muster_contracts import ClockMoved, topics
from muster_contracts.entitlements import FeatureUsed
from muster_entitlements.bootstrap import build
from muster_entitlements.settings import EntitlementsSettings
from muster_entitlements.workers import usage
from muster_entitlements.workers.usage_batches import BATCH_RECORDS
from muster_entitlements.workers.usage_polling import FETCH_MIN_BYTES, POLL_MS
from muster_operator.topics import create_topics, delete_topics
from muster_runtime.clock import SystemClock
from muster_runtime.database.wakeup import Wakeup
from muster_runtime.messaging.backlog import Backlog
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.process.running import collect_garbage_rarely
from muster_runtime.service import Runtime
from tests.bench import consumption
from tests.bench.processes import Span, span
from tests.bench.report import Measurement
from tests.bench.setting import AGENCIES, SEAT_TOPIC, Setting, setting

FEATURE = "deep-research"

# Per agency: enough that nobody uses half of the monthly quota, which is a threshold and would be published.
PEOPLE = 2_000

# The events are split into this many parts; the two count each part, one after the other.
PARTS = 5

# Uses at a rate are sent so many seconds' worth at a time: a sleep before each would take as much CPU as the sending.
TICK_SECONDS = 0.02

_AGENCIES = """
with pool as (
    insert into pool (agency_id, enrollment_id, starts_at, ends_at, cap, in_use)
    select agency_id, 'enr', now() - interval '70 days', now() + interval '200 days', $2, $2
    from unnest($1::text[]) as agency_id
    returning agency_id, starts_at
),

windows as (
    insert into feature_window (
        agency_id, enrollment_id, feature, window_id, trial, mode, starts_at, ends_at, mode_after, monthly_quota_after
    )
    select
        agency_id, 'enr', $3, 'win_' || agency_id, true, 'unlimited',
        starts_at, starts_at + interval '60 days', 'quota', 1000000000
    from pool
)

insert into seat (agency_id, seat_id, subject_ref, state, assigned_at, activated_at, idle_since)
select
    agency_id, 'seat_' || lpad(to_hex(n), 32, '0'), 'sub_' || md5(agency_id || n), 'active', now(), now(), current_date
from pool
cross join generate_series(1, $2::int) as s (n)
"""

_AGGREGATE = """
insert into effect as e (agency_id, feature, subject_ref, used)
select agency_id, feature, subject_ref, sum(amount)
from unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) as g (agency_id, feature, subject_ref, amount)
group by agency_id, feature, subject_ref
on conflict (agency_id, feature, subject_ref) do update set used = e.used + excluded.used
"""


async def measure(events: int, seconds: float) -> list[Measurement]:
    """Count this many events from the topic; then consume for this many seconds."""
    async with setting() as own:
        used = build(EntitlementsSettings(environment="sandbox")).topics | {ClockMoved.topic}
        others = sorted(used - {SEAT_TOPIC})
        await create_topics(own.kafka, own.topic_prefix, [topics()[name] for name in others])
        try:
            subjects = await _fill(own)
            people = len(subjects)
            await report_uses(own.kafka, own.topic_prefix, subjects, range(people))
            await _both(own, people, people)  # everybody's first use of the day is not measured
            collect_garbage_rarely()
            counted = []
            for part in range(PARTS):
                numbers = range(people + events * part // PARTS, people + events * (part + 1) // PARTS)
                await report_uses(own.kafka, own.topic_prefix, subjects, numbers)
                counted.append(await _both(own, len(numbers), numbers.stop))
            gc.unfreeze()
            await _tidy(own)
            consumed = await consumption.measure(own, subjects, FEATURE, seconds)
        finally:
            await delete_topics(own.kafka, [own.topic_prefix + name for name in others])
    limits, ours = zip(*counted, strict=True)
    return [
        Measurement(
            "count use from Kafka",
            events / sum(each.wall for each in ours),
            events / sum(each.wall for each in limits),
            "events/s",
            "0.5 of it, 20,000 events/s",
            sum(each.cpu for each in ours),
            sum(each.cpu for each in limits),
            max(each.peak_mebibytes for each in ours),
        ),
        growth([each.peak_mebibytes for each in ours]),
        consumed,
    ]


def growth(peaks: Sequence[float]) -> Measurement:
    """The peak memory of the last part and of the first: flat unless it grows with the number of counted events."""
    return Measurement("memory of the last part beside the first", peaks[-1], peaks[0], "MiB", "at most 1.2 of it")


async def _both(own: Setting, events: int, through: int) -> tuple[Span, Span]:
    """The limit and ours, each from its start to the last of this many events."""
    return await _aggregate(own, events), await _count(own, through)


async def _fill(own: Setting) -> list[tuple[str, str]]:
    """Insert agencies in their quota, and people with seats; return each agency and subject, agencies in turn."""
    admin = await asyncpg.connect(own.access.admin_dsn, server_settings={"search_path": "entitlements"})
    await admin.execute(_AGENCIES, AGENCIES, PEOPLE, FEATURE)
    await admin.execute(
        "create table effect (agency_id text, feature text, subject_ref text, used bigint, "
        "primary key (agency_id, feature, subject_ref))"
    )
    await admin.execute("grant select, update on effect to entitlements_api")
    await admin.execute(
        "select keep_usage_partitions(t, current_date) from unnest(array['usage_seen', 'usage_sum']) as t"
    )
    await admin.execute("analyze")
    rows = await admin.fetch("select agency_id, subject_ref from seat order by seat_id, agency_id")
    await admin.close()
    return [(row["agency_id"], row["subject_ref"]) for row in rows]


async def _tidy(own: Setting) -> None:
    """Do what autovacuum would do beside the next part: while it holds a snapshot, no dead row is pruned."""
    admin = await asyncpg.connect(own.access.admin_dsn)
    await admin.execute("vacuum analyze")
    await admin.execute("checkpoint")
    await admin.close()


async def report_uses(
    kafka: KafkaConnection,
    topic_prefix: str,
    subjects: Sequence[tuple[str, str]],
    numbers: range,
    per_second: float | None = None,
) -> None:
    """Publish uses of these people in turn, at once or at this rate per second; `numbers` are the IDs."""
    now = datetime.now(UTC).isoformat()
    producer = AIOKafkaProducer(**kafka.options(), acks="all", linger_ms=20, max_batch_size=1_000_000)
    await producer.start()
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_source", b"/bench"),
        ("ce_type", FeatureUsed.event_type.encode()),
        ("ce_time", now.encode()),
        ("content-type", b"application/json"),
    ]
    started = time.perf_counter()
    for number in numbers:
        if per_second is not None:
            ahead = started + (number - numbers.start) / per_second - time.perf_counter()
            if ahead > TICK_SECONDS:
                await asyncio.sleep(ahead)
        agency_id, subject_ref = subjects[number % len(subjects)]
        value = json.dumps({"agency_id": agency_id, "subject_ref": subject_ref, "feature": FEATURE, "amount": 1})
        own_headers = [*headers, ("ce_id", b"%d" % number)]
        topic = topic_prefix + FeatureUsed.topic
        await producer.send(topic, value.encode(), key=agency_id.encode(), headers=own_headers)
    await producer.stop()


async def _aggregate(own: Setting, events: int) -> Span:
    """The limit: fetch, decode, add up in one statement, and commit."""
    consumer = AIOKafkaConsumer(
        own.topic_prefix + FeatureUsed.topic,
        **own.kafka.options(),
        group_id=f"{own.topic_prefix}limit",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=POLL_MS,
        fetch_min_bytes=FETCH_MIN_BYTES,
    )
    connection = await asyncpg.connect(own.access.admin_dsn, server_settings={"search_path": "entitlements"})
    seen = 0
    with span() as measured:
        await consumer.start()
        while seen < events:
            batches = await consumer.getmany(timeout_ms=POLL_MS, max_records=BATCH_RECORDS)
            data = [json.loads(record.value or b"") for batch in batches.values() for record in batch]
            if not data:
                continue
            columns = [[each[name] for each in data] for name in ("agency_id", "feature", "subject_ref", "amount")]
            await connection.execute(_AGGREGATE, *columns)
            await consumer.commit()
            seen += len(data)
    await consumer.stop()
    await connection.close()
    return measured


async def _count(own: Setting, through: int) -> Span:
    """Ours, until this many have been counted since the first."""
    settings = EntitlementsSettings(environment="sandbox", topic_prefix=own.topic_prefix, instance="bench")
    clock = SystemClock()
    backlog = Backlog(settings.outbox_rows)
    runtime = Runtime(build(settings), settings, clock, own.database, Wakeup(clock), own.kafka, backlog)
    with span() as measured:
        task = asyncio.create_task(usage.run(runtime))
        async with own.database.connection() as connection:
            while await connection.fetchval("select coalesce(sum(next_offset), 0) from usage_offset") < through:
                await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.wait([task])
    return measured

"""A client with a copy of who may use what: filling the empty copy with every person, and answering checks.

The client is a separate process with its own memory: `python -m tests.bench.snapshots BOOTSTRAP PREFIX`.
"""

import asyncio
import hashlib
import json
import random
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from aiokafka import AIOKafkaProducer

from muster_contracts import topics
from muster_contracts.entitlements import (
    AccessMode,
    AccessPhase,
    AgencyAccess,
    FeatureTimeline,
    QuotaTerms,
    SubjectAccess,
)
from muster_contracts.testing import build, record
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.quotas import PublishedUse
from muster_entitlements.domain.seats import HeldSeat, SeatState
from muster_entitlements.domain.snapshots import Own
from muster_entitlements.publishing.snapshots import subjects_access
from muster_entitlements_client import EntitlementsClient
from muster_operator.topics import create_topics, delete_topics
from muster_runtime.clock import SystemClock
from muster_runtime.messaging.producers import partition_of
from tests.bench.report import Measurement, say
from tests.bench.setting import AGENCIES, Setting, setting

TOPIC = topics()[AgencyAccess.topic]
FEATURE = "deep-research"
SEAT_FEATURE = "advanced-voice"
LIMIT = 25

# The term began before now, and ends after it.
DAY = timedelta(days=1)
BEFORE = 90 * DAY
AFTER = 275 * DAY
TRIAL_DAYS = 60

# Seats per transaction of an import.
CHUNK = 5_000

CHECKS = 200_000


async def measure(people: int) -> list[Measurement]:
    """Fill the topic like imports and use, then start a client on it."""
    async with setting() as own:
        await create_topics(own.kafka, own.topic_prefix, [TOPIC])
        try:
            await _fill(own, people)
            say("snapshots: the topic is filled")
            found = await _client(own)
        finally:
            await delete_topics(own.kafka, [own.topic_prefix + TOPIC.name])
    if found["people"] != people:
        raise AssertionError(f"the client holds {found['people']} of {people} people")
    load = Measurement(
        f"a client from empty to {people:,} people",
        found["seconds"],
        None,
        "s",
        "under 60 s and 400 MB for 2,290,000",
        found["cpu_seconds"],
        None,
        found["peak_mebibytes"],
    )
    return [
        load,
        Measurement("a local check", found["check_microseconds"], None, "µs", "at most 5 µs"),
        Measurement("a local check of a seat's trial", found["trial_microseconds"], None, "µs", "at most 5 µs"),
    ]


async def _fill(own: Setting, people: int) -> None:
    now = SystemClock().now()
    chance = random.Random(1)
    producer = AIOKafkaProducer(**own.kafka.options(), acks="all", compression_type="snappy", linger_ms=5)
    await producer.start()
    for number, agency_id in enumerate(AGENCIES):
        mine = people // len(AGENCIES) + (number < people % len(AGENCIES))
        partition = partition_of(agency_id.encode(), TOPIC.partitions)
        headers = record(build(SubjectAccess, agency_id=agency_id)).headers
        for key, value in _people(_pool(agency_id, now), mine, chance):
            await producer.send(own.topic_prefix + TOPIC.name, value, key.encode(), partition, headers=headers)
        access = record(_agency(agency_id, now))
        await producer.send(own.topic_prefix + TOPIC.name, access.value, access.key, partition, headers=access.headers)
    await producer.stop()


def _agency(agency_id: str, now: datetime) -> AgencyAccess:
    """An agency with a feature whose trial is used up, and one for which each seat has its own trial."""
    starts_at, ends_at = now - BEFORE, now + AFTER
    quota = QuotaTerms(limit=LIMIT, enforced=True)

    def timeline(feature: str, limited_at: datetime, seat_days: int | None) -> FeatureTimeline:
        limited = AccessPhase(starts_at=limited_at, mode=AccessMode.QUOTA, monthly_quota=LIMIT)
        phases = [AccessPhase(starts_at=starts_at, mode=AccessMode.UNLIMITED), limited]
        return FeatureTimeline(feature=feature, phases=phases, quota=quota, seat_days=seat_days)

    features = [timeline(FEATURE, starts_at + TRIAL_DAYS * DAY, None), timeline(SEAT_FEATURE, ends_at, TRIAL_DAYS)]
    changes = {"starts_at": starts_at, "ends_at": ends_at, "features": features, "grants": []}
    return build(AgencyAccess, agency_id=agency_id).model_copy(update=changes)


def _people(pool: Pool, number: int, chance: random.Random) -> Iterator[tuple[str, bytes | None]]:
    """Their records: a fifth of the seats are as the import created them, the others are in use.

    Each of the others was published alone, when its trial began at its own instant, and a tenth of them again, when
    a threshold of a quota was crossed.
    """
    microseconds = BEFORE // timedelta(microseconds=1)
    for place in range(number):
        subject_ref = _subject_ref(pool.agency_id, place)
        seat, own = HeldSeat(SeatState.ASSIGNED), {}
        if place % 5:
            began_at = pool.starts_at + timedelta(microseconds=chance.randrange(microseconds))
            seat = HeldSeat(SeatState.ACTIVE, began_at)
        if place % 10 == 1:
            used, since = chance.choice([13, 20, 25]), pool.starts_at + BEFORE - DAY
            use = PublishedUse(pool.agency_id, subject_ref, FEATURE, used, used, LIMIT, since, since + 30 * DAY)
            own[subject_ref] = Own(uses=(use,))
        revision = place + 1 if place % 5 else place // CHUNK + 1
        yield from subjects_access(pool, revision, {subject_ref: seat}, own).items()


def _pool(agency_id: str, now: datetime) -> Pool:
    return Pool(
        agency_id=agency_id,
        enrollment_id="enr_1",
        starts_at=now - BEFORE,
        ends_at=now + AFTER,
        suspended=False,
        withdrawn_at=None,
        ended=False,
        cap=0,
        in_use=0,
        limit_met=False,
        revision=1,
        generation=1,
        revoking=0,
    )


def _subject_ref(agency_id: str, place: int) -> str:
    return "sub_" + hashlib.md5(f"{agency_id}{place}".encode(), usedforsecurity=False).hexdigest()


async def _client(own: Setting) -> dict[str, float]:
    arguments = ("-m", "tests.bench.snapshots", own.kafka.bootstrap, own.topic_prefix)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    found: dict[str, float] = json.loads(output)
    return found


async def _hold(bootstrap: str, prefix: str) -> dict[str, float]:
    started = time.perf_counter()
    async with EntitlementsClient(
        {"bootstrap_servers": bootstrap}, topic_prefix=prefix, now=SystemClock().now
    ) as client:
        await client.ready()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        chance, of_each = random.Random(2), len(client) // len(AGENCIES)
        asked = [_subject_ref(chance.choice(AGENCIES), chance.randrange(of_each)) for _ in range(CHECKS)]
        return {
            "people": len(client),
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "check_microseconds": _check(client, asked, FEATURE),
            "trial_microseconds": _check(client, asked, SEAT_FEATURE),
            "peak_mebibytes": peak,
        }


def _check(client: EntitlementsClient, subject_refs: Sequence[str], feature: str) -> float:
    """The microseconds of a check of one of these people."""
    started = time.perf_counter()
    for subject_ref in subject_refs:
        client.check(subject_ref, feature)
    return (time.perf_counter() - started) / len(subject_refs) * 1e6


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_hold(*sys.argv[1:]))))

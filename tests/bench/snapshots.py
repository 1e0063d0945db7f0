"""A client that holds a copy of who may use what: from an empty copy to every person, and the checks that it answers.

The client is a process of its own, so that its memory is its own: `python -m tests.bench.snapshots BOOTSTRAP PREFIX`.
"""

import asyncio
import json
import random
import resource
import sys
import time
from collections.abc import Iterator

from aiokafka import AIOKafkaProducer

from muster_contracts import topics
from muster_contracts.entitlements import AgencyAccess, SubjectAccess
from muster_contracts.testing import build, record
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.seats import HeldSeat, SeatState
from muster_entitlements.publishing.snapshots import subjects_access
from muster_entitlements_client import EntitlementsClient
from muster_operator.topics import create_topics, delete_topics
from muster_runtime.clock import SystemClock
from muster_runtime.messaging.producers import partition_of
from tests.bench.report import Measurement, say
from tests.bench.setting import AGENCIES, Setting, setting

TOPIC = topics()[AgencyAccess.topic]
FEATURE = "deep-research"

# Seats of one transaction of an import.
CHUNK = 5_000

CHECKS = 200_000


async def measure(people: int) -> list[Measurement]:
    """Fill the topic as imports do, then start a client on it."""
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
    return [load, Measurement("a local check", found["check_microseconds"], None, "µs", "at most 5 µs")]


async def _fill(own: Setting, people: int) -> None:
    chance = random.Random(1)
    producer = AIOKafkaProducer(**own.kafka.options(), acks="all", compression_type="snappy", linger_ms=5)
    await producer.start()
    for number, agency_id in enumerate(AGENCIES):
        mine = people // len(AGENCIES) + (number < people % len(AGENCIES))
        partition = partition_of(agency_id.encode(), TOPIC.partitions)
        headers = record(build(SubjectAccess, agency_id=agency_id)).headers
        for key, value in _people(agency_id, mine, chance):
            await producer.send(own.topic_prefix + TOPIC.name, value, key.encode(), partition, headers=headers)
        access = record(build(AgencyAccess, agency_id=agency_id))
        await producer.send(own.topic_prefix + TOPIC.name, access.value, access.key, partition, headers=access.headers)
    await producer.stop()


def _people(agency_id: str, number: int, chance: random.Random) -> Iterator[tuple[str, bytes | None]]:
    for start in range(0, number, CHUNK):
        seats = {
            f"sub_{chance.getrandbits(128):032x}": HeldSeat(SeatState.ASSIGNED)
            for _ in range(min(CHUNK, number - start))
        }
        yield from subjects_access(_pool(agency_id), start // CHUNK + 1, seats, {}).items()


def _pool(agency_id: str) -> Pool:
    now = SystemClock().now()
    return Pool(
        agency_id=agency_id,
        enrollment_id="enr_1",
        starts_at=now,
        ends_at=now,
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
        chance = random.Random(1)
        asked = [f"sub_{chance.getrandbits(128):032x}" for _ in range(CHECKS)]
        started = time.perf_counter()
        for subject_ref in asked:
            client.check(subject_ref, FEATURE)
        check_seconds = (time.perf_counter() - started) / CHECKS
        return {
            "people": len(client),
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "check_microseconds": check_seconds * 1e6,
            "peak_mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_hold(*sys.argv[1:]))))

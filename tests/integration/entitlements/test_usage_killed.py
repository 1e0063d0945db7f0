"""Reported use while the processes that count it are killed again and again: the sums are those of a model."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaProducer

from muster_contracts import ClockMoved
from muster_contracts.entitlements import FeatureUsed, QuotaExceeded, QuotaThresholdCrossed
from tests.integration.entitlements.conftest import Entitlements, ProcessStarter
from tests.integration.entitlements.test_usage import LATER, report, used
from tests.support.eventually import eventually

AGENCIES = ("NASA", "DOE", "GSA")
QUOTA = 25

# Events of use, and how many are sent before each kill.
CHUNKS, CHUNK = 6, 5_000

STRUCTURED = [("content-type", b"application/cloudevents+json")]


@dataclass
class Reporter:
    """A producer of use that sends some events again, as after a lost answer; and the sums that must result."""

    chance: random.Random
    events: list[dict[str, Any]] = field(default_factory=list)
    records: int = 0
    invalid: int = 0

    async def send(self, kafka: AIOKafkaProducer, topic: str, count: int) -> None:
        """Send `count` new events, in batches many of which come twice, and some invalid ones."""
        until = len(self.events) + count
        while len(self.events) < until:
            start = len(self.events)
            self.events += [self._event(number) for number in range(start, start + 100)]
            batch = self.events[start:]
            for again in range(1 + (self.chance.random() < 0.3)):
                values = [json.dumps(event).encode() for event in batch]
                if again == 0 and self.chance.random() < 0.2:
                    values.append(b"{")
                    self.invalid += 1
                for value in values:
                    await kafka.send(topic, value, headers=STRUCTURED)
                self.records += len(values)
        await kafka.flush()

    def _event(self, number: int) -> dict[str, Any]:
        agency_id = self.chance.choice(AGENCIES)
        subject = f"sub_{self.chance.randrange(300):032x}"
        return used(number, subject, amount=self.chance.choice((1, 1, 1, 4)), agency_id=agency_id)

    def sums(self) -> Counter[tuple[str, str]]:
        """How much each person and each agency used."""
        found: Counter[tuple[str, str]] = Counter()
        for event in self.events:
            data = event["data"]
            for subject in (data["subject_ref"], ""):
                found[data["agency_id"], subject] += data["amount"]
        return found

    def crossed(self) -> set[tuple[str, str, int]]:
        """The thresholds that people crossed."""
        people = {person: use for person, use in self.sums().items() if person[1]}
        return {
            (*person, percent)
            for person, use in people.items()
            for percent in (50, 80, 100)
            if use * 100 >= percent * QUOTA
        }


async def test_the_intake_of_usage_killed_again_and_again_counts_each_event_once(
    front: Entitlements, start_process: ProcessStarter, chance: random.Random
) -> None:
    """Killed by a signal from outside, and by themselves when sums and offsets are written but not committed."""
    admin, runtime = front.service.admin, front.service.runtime
    for agency_id in AGENCIES:
        await Entitlements(front.service, agency_id).enroll(cap=5)
    await move(front, LATER)
    topic = runtime.settings.topic_prefix + FeatureUsed.topic
    reporter = Reporter(chance)

    async def read() -> int:
        offset: int = await admin.fetchval("select coalesce(sum(next_offset), 0)::int from usage_offset")
        return offset

    async with AIOKafkaProducer(**runtime.kafka.options(), acks="all", linger_ms=5) as kafka:
        for number in range(CHUNKS):
            await reporter.send(kafka, topic, CHUNK)
            before = await read()
            by_itself = ["--die-before", "last sequence", "--nth", str(chance.randint(1, 3))] if number % 2 else []
            process = await start_process("worker", breaking=by_itself)
            if by_itself:
                await asyncio.wait_for(process.wait(), 60)
            else:

                async def going(before: int = before) -> bool:
                    return await read() > before

                await eventually(going, timeout=60, prompt=True)
                # The same by HTTP meanwhile.
                await report(front, *chance.sample(reporter.events, 500))
                await asyncio.sleep(chance.random() * 0.2)
                process.kill()
                await process.wait()
            await admin.execute("delete from lease")  # which would delay the next one
    assert await read() < reporter.records

    await start_process("worker", "relay")

    async def over() -> bool:
        done = await read() == reporter.records
        quiet = "select not exists (select from usage_deferred) and not exists (select from outbox)"
        return done and bool(await admin.fetchval(quiet))

    await eventually(over, timeout=60)
    rows = await admin.fetch("select agency_id, subject_ref, used from usage_sum")
    assert {(row["agency_id"], row["subject_ref"]): row["used"] for row in rows} == reporter.sums()
    assert await admin.fetchval("select count(*) from usage_seen") == len(reporter.events)
    assert await admin.fetchval("select count(*) from usage_parked") == reporter.invalid
    crossed = [
        (each.data.agency_id, each.data.subject_ref, each.data.threshold_percent)
        for each in distinct(await front.service.published(QuotaThresholdCrossed))
    ]
    assert Counter(crossed) == Counter(reporter.crossed())
    exceeded = [
        (each.data.agency_id, each.data.subject_ref) for each in distinct(await front.service.published(QuotaExceeded))
    ]
    assert Counter(exceeded) == Counter(person for person, use in reporter.sums().items() if person[1] and use > QUOTA)


def distinct(published: Sequence[Any]) -> list[Any]:
    """Each event once: a relay that was killed publishes some again."""
    return list({each.envelope.id: each for each in published}.values())


async def move(front: Entitlements, now: datetime) -> None:
    """Move the clock, also of the processes that start later."""
    front.service.clock.move(now)
    value = ClockMoved(now=now).model_dump_json().encode()
    await front.service.producer.put_raw(ClockMoved.topic, key=None, value=value, headers=[])

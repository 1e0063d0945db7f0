"""The client's copy and its JavaScript twin answer only once they are complete."""

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition

from muster_contracts.entitlements import AgencyAccess, SubjectAccess
from muster_contracts.testing import Record, build, record
from muster_entitlements_client import AccessCopy, EntitlementsClient, NotReady, Stale
from muster_entitlements_client.follower import Follower, _AnotherLog
from tests.contract.subscribers.test_javascript import in_javascript
from tests.contract.test_entitlements_client import NOW, SUBJECT, copy_of

PARTITION = TopicPartition("muster.entitlements.snapshot", 0)
PERSON, AGENCY = record(build(SubjectAccess)), record(build(AgencyAccess))
STRANGER = "sub_" + "0" * 32

# More than one fetch returns.
MANY = 10_000


class Log:
    """A consumer whose records are all fetched already: like aiokafka's, it then returns them without a pause."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.brought = 0
        self._records = records

    async def position(self, _: TopicPartition) -> int:
        return self.brought

    async def getmany(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[ConsumerRecord[Any, Any]]]:
        first = self.brought
        brought = self._records[first : first + max_records]
        self.brought += len(brought)
        return {PARTITION: [_consumed(item, first + place) for place, item in enumerate(brought)]}


def _consumed(item: Record, offset: int) -> ConsumerRecord[Any, Any]:
    headers = tuple(item.headers)
    return ConsumerRecord(*PARTITION, offset, 0, 0, item.key, item.value, None, 0, 0, headers)


class Following:
    """A client that follows its own log."""

    def __init__(self, **options: Any) -> None:
        self.client = EntitlementsClient({"bootstrap_servers": "127.0.0.1:1"}, now=lambda: NOW, **options)
        self.follower = self.client._follower

    def take(self, *records: Record) -> None:
        """What the follower does when it has read to the end."""
        for item in records:
            self.follower.copy.take(item.headers, item.key, item.value)
        self.follower._took_all(time.monotonic())


async def test_a_client_is_ready_again_only_when_its_new_copy_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    following = Following()

    async def idle(_: Follower) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Follower, "run", idle)
    async with following.client as client:
        following.take(AGENCY, PERSON)
        await client.ready()
        assert client.check(SUBJECT, "deep-research").reason == "window_open"
        following.follower._forget()  # the topic is another one
        waiting = asyncio.create_task(client.ready())
        done, _ = await asyncio.wait([waiting], timeout=0.01)
        assert not done
        following.take()  # it is empty
        done, _ = await asyncio.wait([waiting], timeout=0.01)
        assert not done
        with pytest.raises(NotReady):
            client.check(SUBJECT)
        following.take(PERSON, AGENCY)
        await waiting
        assert client.check(SUBJECT, "deep-research").reason == "window_open"


async def test_other_tasks_run_while_the_topic_is_read() -> None:
    log = Log([replace(PERSON, key=ref.encode(), value=_of(ref)) for ref in map("sub_{:032x}".format, range(MANY))])
    seen = []

    async def beat() -> None:
        while log.brought < MANY:
            seen.append(log.brought)
            await asyncio.sleep(0)

    beating = asyncio.create_task(beat())
    follower = Follower({}, "")
    await follower._read_to(log, {PARTITION: MANY})  # type: ignore[arg-type]
    await beating
    assert len(follower.copy) == MANY
    turns = [0, *seen, MANY]
    assert max(later - before for before, later in itertools.pairwise(turns)) <= 1_000


async def test_a_log_that_ends_before_what_was_read_is_another_one() -> None:
    """Its last records are gone, and it may grow past their offsets before the next fetch."""
    follower, log = Follower({}, ""), Log([AGENCY, PERSON])
    await follower._read_to(log, {PARTITION: 1})  # type: ignore[arg-type]
    assert log.brought == 2  # reading more than requested is no loss
    await follower._read_to(log, {PARTITION: 2})  # type: ignore[arg-type]
    with pytest.raises(_AnotherLog, match=r"the partitions \[0\] are gone"):
        await follower._read_to(log, {PARTITION: 1})  # type: ignore[arg-type]


def _of(subject_ref: str) -> bytes:
    return (PERSON.value or b"").replace(SUBJECT.encode(), subject_ref.encode())


def test_a_copy_that_may_be_older_than_allowed_does_not_answer() -> None:
    following = Following(max_staleness_seconds=30)
    following.take(AGENCY, PERSON)
    following.follower._took_all(time.monotonic() - 29)
    assert following.client.check(SUBJECT, "deep-research").reason == "window_open"
    following.follower._took_all(time.monotonic() - 31)
    with pytest.raises(Stale, match="may be 31 s old, more than 30 s"):
        following.client.check(SUBJECT, "deep-research")
    assert (following.client.staleness_seconds or 0) > 30


def test_neither_answers_about_a_person_whose_agency_has_not_arrived() -> None:
    copy = copy_of([PERSON])
    assert not copy.knows_agencies
    for agency_id in (None, "NASA"):
        with pytest.raises(NotReady):
            copy.check(SUBJECT, None, NOW, agency_id)
    assert AccessCopy().check(SUBJECT, None, NOW, "NASA").reason == "unknown"


def test_the_twin_answers_once_it_has_reached_the_ends_and_no_longer_after_what_it_cannot_read() -> None:
    program = f"""
        const {{ AccessCopy, NotReady }} = await import("./access.mjs");
        const [person, agency, other, unreadable] = records;
        const found = [];
        let copy = new AccessCopy();
        const answers = (subject = {SUBJECT!r}) => {{
          try {{
            found.push(copy.check(subject, null, "{NOW.isoformat()}").reason);
          }} catch (error) {{
            found.push(error instanceof NotReady);
          }}
        }};
        const ends = (last) => [
          {{ partition: 0, low: "0", high: "7" }},
          {{ partition: 1, low: "0", high: last }},
          {{ partition: 2, low: "4", high: "4" }},
        ];
        copy.take(person);
        copy.take(agency);
        answers();  // which ends are to be reached, is not known
        copy.expect(ends("3"));
        answers();
        copy.reached(0, "6");
        copy.reached(1, "1");
        answers();
        copy.reached(1, "2");
        answers();
        copy.take(other);
        answers({STRANGER!r});
        answers();
        try {{
          copy.take(unreadable);
        }} catch {{
          answers();
        }}
        copy = new AccessCopy();
        copy.expect([]);
        answers();  // an empty topic is no copy
        copy.take(agency);
        answers();
        console.log(JSON.stringify(found));
    """
    other = record(build(SubjectAccess, agency_id="NIH", subject_ref=STRANGER))
    found = in_javascript(program, [PERSON, AGENCY, other, replace(PERSON, value=b"{")])
    assert found == [True, True, True, "seat_assigned", True, "seat_assigned", True, True, "no_seat"]


def test_both_refuse_what_is_no_reference_since_no_seat_would_be_wrong() -> None:
    subjects: list[Any] = ["ada@nasa.gov", "", " ", "x", f"{STRANGER}0", STRANGER.replace("0", "A"), None]
    for subject in subjects:
        with pytest.raises(ValueError, match="knows references only"):
            copy_of([AGENCY, PERSON]).check(subject, None, NOW, "NASA")
    program = f"""
        const {{ AccessCopy }} = await import("./access.mjs");
        const found = {json.dumps(subjects)}.map((subject) => {{
          try {{
            return new AccessCopy().check(subject, null, "2025-09-01T00:00:00Z").reason;
          }} catch (error) {{
            return `${{error.name}} ${{error.message}}`;
          }}
        }});
        console.log(JSON.stringify(found));
    """
    rule = "RangeError subject must be sub_ and 32 hexadecimal digits: a copy knows references only"
    assert in_javascript(program, []) == [rule] * len(subjects)


def test_the_twin_says_how_to_write_the_instant() -> None:
    instants: list[Any] = ["now", "", "2025-09-01", "2025-09-01T00:00:00+02:00", "2025-19-01T00:00:00Z", None, 0]
    instants.append("2025-09-01T00:00:00.123456789+00:00")  # in nanoseconds, as other languages write it
    program = f"""
        const {{ AccessCopy }} = await import("./access.mjs");
        const found = {json.dumps(instants)}.map((now) => {{
          try {{
            return new AccessCopy().check({STRANGER!r}, null, now).reason;
          }} catch (error) {{
            return `${{error.name}} ${{error.message}}`;
          }}
        }});
        console.log(JSON.stringify(found));
    """
    rule = "RangeError now must be a text in UTC, such as 2025-08-06T00:00:00Z"
    assert in_javascript(program, []) == [*[rule] * 7, "Error the copy is not complete"]

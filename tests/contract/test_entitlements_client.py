"""The client's copy and its JavaScript twin answer as the service does."""

import asyncio
import itertools
import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from muster_contracts.entitlements import AgencyAccess, SeatAssigned, SubjectAccess, SubjectAccessErased
from muster_contracts.testing import Record, build, record
from muster_entitlements_client import AccessCopy, EntitlementsClient, HttpChecks, NotReady, people
from muster_entitlements_client.access_copy import Unreadable
from tests.contract.golden_checks import FILE, golden
from tests.contract.subscribers.test_javascript import in_javascript

GOLDEN = json.loads(FILE.read_text("utf-8"))
NOW = datetime(2025, 9, 1, tzinfo=UTC)
SUBJECT = "sub_01987b3e0000700080000000000000bb"
NEWER = [(name, value.replace(b".v1", b".v2")) for name, value in record(build(SubjectAccess)).headers]
OF_ANOTHER = [(name, value.replace(b"NASA", b"NIH")) for name, value in record(build(SubjectAccess)).headers]
WITHOUT_GRANTS = json.dumps(build(SubjectAccess).model_dump(mode="json") | {"grants": None}).encode()


def snapshot() -> list[Record]:
    """The records of the golden cases, people first, since compaction leaves an agency's record after theirs."""
    people = [record(SubjectAccess.model_validate(data)) for data in GOLDEN["subjects"]]
    people += [record(SubjectAccessErased.model_validate(data)) for data in GOLDEN["erased"]]
    return people + [record(AgencyAccess.model_validate(data)) for data in GOLDEN["agencies"]]


def instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def copy_of(records: list[Record]) -> AccessCopy:
    copy = AccessCopy()
    for each in records:
        copy.take(each.headers, each.key, each.value)
    return copy


def test_the_golden_cases_are_the_services_answers() -> None:
    assert FILE.read_text("utf-8") == golden(), "run python -m tests.contract.golden_checks"


def test_the_client_answers_as_the_service_does() -> None:
    copy = copy_of(snapshot())
    assert len(copy) == len(GOLDEN["subjects"]) - 1  # one was erased by their own agency
    for case in GOLDEN["checks"]:
        now = datetime.fromisoformat(case["now"])
        answer = copy.check(case["subject_ref"], case["feature"], now, case["agency_id"])
        expected = case["answer"]
        instants = {name: instant(expected[name]) for name in ("valid_until", "resets_at")}
        assert answer._asdict() == {**expected, **instants}, case
        alone = copy.check(case["subject_ref"], case["feature"], now)
        assert alone == answer or copy.agency_of(case["subject_ref"]) != case["agency_id"], case


def test_its_javascript_twin_answers_as_the_service_does() -> None:
    program = f"""
        const {{ AccessCopy }} = await import("./access.mjs");
        const copy = new AccessCopy();
        copy.expect([]);
        for (const record of records) copy.take(record);
        const {{ checks }} = JSON.parse(readFileSync({json.dumps(str(FILE))}, "utf8"));
        const answers = checks.map((c) => copy.check(c.subject_ref, c.feature, c.now, c.agency_id));
        const alone = checks.map((c) => copy.check(c.subject_ref, c.feature, c.now));
        console.log(JSON.stringify({{ size: copy.size, answers, alone }}));
    """
    found, copy = in_javascript(program, snapshot()), copy_of(snapshot())
    assert found["size"] == len(GOLDEN["subjects"]) - 1
    for case, answer, alone in zip(GOLDEN["checks"], found["answers"], found["alone"], strict=True):
        assert answer == case["answer"], case
        assert alone == answer or copy.agency_of(case["subject_ref"]) != case["agency_id"], case


def test_nobody_is_allowed_past_the_end_of_an_answer() -> None:
    copy = copy_of([record(build(AgencyAccess)), record(build(SubjectAccess))])
    allowed = copy.check(SUBJECT, "deep-research", NOW)
    assert (allowed.verdict, allowed.reason) == ("allowed", "window_open")
    assert allowed.valid_until == datetime(2025, 10, 5, tzinfo=UTC)
    reasons = []
    answer = allowed
    while answer.valid_until is not None:
        answer = copy.check(SUBJECT, "deep-research", answer.valid_until)
        reasons.append((answer.reason, answer.monthly_quota, answer.revision))
    assert reasons == [("quota", 25, 42), ("granted", None, 42), ("quota", 25, 42), ("ended", None, 42)]
    assert answer.verdict == "refused"


def test_a_tombstone_or_a_later_record_replaces_an_earlier_record() -> None:
    access = build(SubjectAccess)
    copy = copy_of([record(build(AgencyAccess)), record(access)])
    suspended = access.model_copy(update={"seat": "suspended", "revision": 43})
    copy_takes(copy, record(suspended))
    assert (copy.check(SUBJECT, None, NOW).reason, copy.check(SUBJECT, None, NOW).revision) == ("seat_suspended", 43)
    copy_takes(copy, record(build(SubjectAccessErased, subject_ref=SUBJECT)))
    assert (len(copy), copy.check(SUBJECT, None, NOW, "NASA").reason) == (0, "no_seat")
    # Beside an identical record for another person, whose content the copy shares.
    copy_takes(copy, record(access))
    copy_takes(copy, record(access.model_copy(update={"subject_ref": "another form"})))
    assert (len(copy), copy.check("another form", None, NOW).reason) == (2, "seat_assigned")
    # A state that the copy does not know allows nothing.
    copy_takes(copy, record(access.model_copy(update={"seat": "on_leave"})))
    assert copy.check(SUBJECT, None, NOW)[:2] == ("refused", "seat_on_leave")


def test_an_answer_has_the_highest_revision_that_came_in_whatever_order() -> None:
    """Another partition may bring an agency's record after those of people that changed later."""
    later = record(build(SubjectAccess, subject_ref="sub_" + "1" * 32, revision=50))
    agency, person = record(build(AgencyAccess)), record(build(SubjectAccess, grants=[]))
    records = [agency, person, later, agency]
    copy, revisions = AccessCopy(), []
    for each in records:
        copy_takes(copy, each)
        revisions.append(copy.check(SUBJECT, "deep-research", NOW, "NASA").revision)
    assert revisions == [42, 42, 50, 50]
    program = f"""
        const {{ AccessCopy }} = await import("./access.mjs");
        const copy = new AccessCopy();
        copy.expect([]);
        const found = records.map((record) => {{
          copy.take(record);
          return copy.check({SUBJECT!r}, "deep-research", "{NOW.isoformat()}", "NASA").revision;
        }});
        console.log(JSON.stringify(found));
    """
    assert in_javascript(program, records) == revisions


def test_the_rows_of_people_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "_TOGETHER", 0)  # all are stored together
    zeros, spaced = "sub_" + "0" * 32, "sub_" + "0 " * 32
    refs = [zeros, spaced, "sub_" + "A" * 32, "sub_" + "a" * 32, "sub_", "", "another form"]
    refs += [f"sub_{number << 8 * number:032x}" for number in range(1, 16)]  # they look like parts of other rows
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    rows, model = people.People(), dict[str, tuple[int, int]]()
    for _ in range(2_000):
        ref, row = chance.choice(refs), (chance.choice([0, 1, 256]), chance.choice([0, 1 << 8, -1, -(1 << 63)]))
        if chance.random() < 0.6:
            assert rows.put(ref, *row) == model.get(ref)
            model[ref] = row
        else:
            assert rows.remove(ref) == model.pop(ref, None)
        assert len(rows) == len(model)
        assert {ref: rows.find(ref) for ref in refs} == {ref: model.get(ref) for ref in refs}


def test_content_that_records_share_is_stored_once_and_as_long_as_a_person_has_it() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    agency = record(agency_with_trials())
    copy, last = copy_of([agency]), dict[str, Record]()
    for number in range(1_000):
        subject_ref = f"sub_{chance.randrange(40):032x}"
        if chance.random() < 0.2:
            copy_takes(copy, record(build(SubjectAccessErased, subject_ref=subject_ref)))
            last.pop(subject_ref, None)
            continue
        came = spelled(some_access(subject_ref, chance), chance)
        copy_takes(copy, came)
        last[subject_ref] = came
        if number % 40 == 0:  # a cached answer is right for other people too
            for at in (NOW, NOW + timedelta(days=30), NOW + timedelta(days=60)):
                for ref, feature in itertools.product(last, ("deep-research", "voice", None)):
                    fresh = copy_of([agency, last[ref]]).check(ref, feature, at)
                    assert copy.check(ref, feature, at)._replace(revision=0) == fresh._replace(revision=0)
    assert (len(copy), len(copy._standings)) == (len(last), len(copy._numbers))
    for subject_ref in last:
        copy_takes(copy, record(build(SubjectAccessErased, subject_ref=subject_ref)))
    assert (len(copy), copy._standings, copy._numbers) == (0, {}, {})


def test_each_seats_trial_ends_at_its_own_instant() -> None:
    began_at = {f"sub_{days:032x}": NOW - timedelta(days=days) for days in (1, 2, 3)}
    people = [
        build(SubjectAccess, subject_ref=ref, trial_began_at=at, grants=[], quotas=[], further_uses=[])
        for ref, at in began_at.items()
    ]
    copy = copy_of([record(agency_with_trials()), *map(record, people)])
    for subject_ref, at in began_at.items():
        ends_at = at + timedelta(days=30)
        before, after = (copy.check(subject_ref, "voice", ends_at + timedelta(seconds=shift)) for shift in (-1, 0))
        assert (before.reason, before.valid_until) == ("window_open", ends_at)
        assert (after.reason, after.valid_until) == ("quota", datetime(2025, 10, 5, tzinfo=UTC))


def agency_with_trials() -> AgencyAccess:
    access = build(AgencyAccess, grants=[])
    trial = access.features[0].model_copy(update={"feature": "voice", "seat_days": 30})
    return access.model_copy(update={"features": [*access.features, trial]})


def some_access(subject_ref: str, chance: random.Random) -> SubjectAccess:
    """A person's access, which a few others share except for the revision and the instant."""
    typical = build(SubjectAccess)
    began_at = NOW - timedelta(days=chance.choice([3, 40]), microseconds=chance.choice([0, 1, 10**6]))
    return typical.model_copy(
        update={
            "subject_ref": subject_ref,
            "revision": chance.randrange(1, 100),
            "seat": chance.choice(["assigned", "active", "suspended"]),
            "trial_began_at": chance.choice([None, began_at]),
            "grants": chance.choice([[], [], typical.grants]),
        }
    )


def spelled(access: SubjectAccess, chance: random.Random) -> Record:
    """Its record, as Muster writes it or in another spelling of the same data."""
    came = record(access)
    data = json.loads(came.value or b"")
    if data["trial_began_at"] and chance.random() < 0.5:
        data["trial_began_at"] = data["trial_began_at"].replace("Z", "+00:00")
    return replace(came, value=chance.choice([came.value, json.dumps(data, sort_keys=True).encode()]))


def copy_takes(copy: AccessCopy, item: Record) -> None:
    copy.take(item.headers, item.key, item.value)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"key": b""}, "no key"),
        ({"value": b"{}"}, "agency_id: Field required"),
        ({"key": b"sub_2"}, "differs from the record's key"),
        ({"headers": NEWER}, "needs a newer"),
        ({"headers": OF_ANOTHER}, "agency_id differs from the header ce_partitionkey"),
        ({"value": WITHOUT_GRANTS}, "grants: Input should be a valid array"),
    ],
)
def test_a_record_that_the_client_cannot_read_is_refused_by_the_twin_too(changes: dict[str, Any], rule: str) -> None:
    good = record(build(SubjectAccess))
    bad = replace(good, **changes)
    alike = record(build(SubjectAccess, subject_ref="sub_" + "1" * 32))
    for copy in (AccessCopy(), copy_of([alike])):  # which may know the rest of the record from somebody else
        with pytest.raises(Unreadable, match=rule):
            copy_takes(copy, bad)
    program = """
        const { AccessCopy, Unreadable } = await import("./access.mjs");
        try {
          new AccessCopy().take(records[0]);
          console.log("null");
        } catch (error) {
          console.log(JSON.stringify(error instanceof Unreadable));
        }
    """
    assert in_javascript(program, [bad]) is True


def test_records_of_other_types_are_skipped() -> None:
    copy = copy_of([record(build(SeatAssigned)), record(build(SubjectAccess))])
    assert len(copy) == 1
    assert copy.check("sub_" + "0" * 32, None, NOW).reason == "no_seat"


async def test_a_redirect_does_not_leak_the_token() -> None:
    asked: list[str] = []

    async def lead_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(f"HTTP/1.1 302 Found\r\nLocation: {url}/away\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(lead_away, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(OSError, match="302"):
            await HttpChecks(url, token=lambda: "secret")("NASA", SUBJECT, None)
    assert [request.split()[1].split("?")[0] for request in asked] == ["/v1/agencies/NASA/checks"]


async def test_an_empty_client_answers_nothing() -> None:
    client = EntitlementsClient({"bootstrap_servers": "127.0.0.1:1"}, now=lambda: NOW + timedelta(days=1))
    with pytest.raises(NotReady):
        client.check(SUBJECT, None)
    with pytest.raises(NotReady):
        await client.check_or_ask(SUBJECT, None)
    with pytest.raises(NotReady):
        await client.ready()

"""Reported use counts the same however its events are cut into batches, and in whatever order they come."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from muster_contracts.entitlements import SeatActivated, SubjectAccess
from muster_entitlements.domain.usage import read_use
from muster_entitlements.handlers import usage, usage_reports
from muster_entitlements.handlers.seat_trials import SEAT_TRIAL_ENDS, SEAT_TRIALS_ENDING_SOON
from muster_entitlements.workers.usage import UsageIntake
from muster_entitlements.workers.usage_batches import BATCH_LOCK, writing
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.lives import published
from tests.integration.entitlements.test_catalog import publish, rolled_out
from tests.integration.entitlements.test_quota_copies import NOTES
from tests.integration.entitlements.test_seat_trials import CANVAS
from tests.integration.entitlements.test_usage import ADA, BEN, LATER, limited, report, sums, used
from tests.integration.entitlements.test_usage_intake import count_all, put
from tests.support.eventually import eventually

DAY = timedelta(days=1)


async def test_one_id_counts_once_on_each_day_even_within_a_batch(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=5)
    entitlements.service.clock.move(LATER)
    both = [used(1, at=LATER - DAY), used(1)]
    other = used(1, amount=2)
    body = (await report(entitlements, *both, other)).json()
    assert (body["counted"], body["repeated"], [each["index"] for each in body["refused"]]) == (2, 0, [2])
    assert (await sums(entitlements))[ADA, "10-05"] == 2
    assert (await report(entitlements, *both)).json() == {"counted": 0, "repeated": 2, "refused": []}


async def test_a_number_that_is_not_one_of_a_use_refuses_only_its_event(entitlements: Entitlements) -> None:
    """Even one with more digits than Python reads, and those that JSON does not have."""
    await entitlements.enroll(cap=5)
    entitlements.service.clock.move(LATER)
    numbers = ["9" * 5_000, "-" + "9" * 5_000, "1.0", "1e999", "NaN", "-Infinity"]
    events = [
        json.dumps(used(0)),
        *(json.dumps(used("n", amount=0)).replace('"amount": 0', f'"amount": {number}') for number in numbers),
        json.dumps(used("n")).replace('"id": "n"', f'"id": {numbers[0]}'),
    ]
    reply = await entitlements.service.client.post(
        "/v1/usage", content=f"[{','.join(events)}]", headers={"Content-Type": "application/cloudevents-batch+json"}
    )
    assert (reply.status_code, reply.json()["counted"]) == (200, 1), reply.text
    refused = [(each["index"], each["id"], each["field"], each["value"]) for each in reply.json()["refused"]]
    shown = ["9" * 200, "-" + "9" * 199, "1.0", "inf", "nan", "-inf"]
    assert refused == [
        *((place, "n", "data.amount", value) for place, value in enumerate(shown, start=1)),
        (7, None, "id", "9" * 200),
    ]
    assert await sums(entitlements) == {(ADA, "10-05"): 1, ("", "10-05"): 1}


async def test_a_body_that_is_no_batch_is_refused_as_a_whole(entitlements: Entitlements) -> None:
    async def refused(content: bytes, status: int) -> Any:
        headers = {"Content-Type": "application/cloudevents-batch+json"}
        reply = await entitlements.service.client.post("/v1/usage", content=content, headers=headers)
        assert reply.status_code == status, reply.text
        return reply.json()

    rule = "must be a list of 1 to 10000 CloudEvents"
    many = json.dumps([used(1)] * 10_001)
    for body, value in (("[]", "[]"), ('{"specversion": "1.0"}', '{"specversion": "1.0"}'), (many, "10001 events")):
        errors = (await refused(body.encode(), 422))["errors"]
        assert errors == [{"field": "body", "value": value, "rule": rule}]
    of_text = "at character "
    not_utf8 = '["é", "'.encode() + b'\xff"]', "at byte 8: it is not UTF-8"
    for text, place in ((b"foo", of_text), not_utf8, (b'[{"id": }]', of_text), (b"[" * 2, of_text)):
        problem = await refused(text, 400)
        assert problem["type"] == "urn:muster:problem:malformed-json"
        assert problem["detail"].startswith(place)


async def test_one_id_counts_once_on_each_day_also_from_the_topic(front: Entitlements) -> None:
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    await put(front, used(1, at=LATER - DAY), used(1))
    await count_all(UsageIntake(front.service.runtime))
    assert await sums(front) == {(ADA, "10-05"): 2, ("", "10-05"): 2}
    assert await front.service.admin.fetchval("select count(*) from usage_parked") == 0


async def test_a_large_batch_is_counted_in_parts_and_in_the_order_of_time(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_reports, "PART_USES", 20)
    await entitlements.enroll(cap=2)
    limited(monkeypatch, limit=0)
    body = {"feature": "deep-research", "amount": 30, "reason": "pilot", "ends_at": (LATER + 3 * DAY).isoformat()}
    entitlements.service.clock.move(LATER + 2 * DAY)
    assert (await entitlements.post("quota-grants", body | {"starts_at": LATER.isoformat()})).status_code == 201
    events = [used(number, ADA if number < 25 else BEN, LATER + (49 - number) * DAY / 50) for number in range(50)]
    reply = (await report(entitlements, *events, *events[:5], used(51, amount=-1))).json()
    assert (reply["counted"], reply["repeated"], [each["index"] for each in reply["refused"]]) == (50, 5, [55])
    assert await paid(entitlements) == {ADA: (25, 5, 20), BEN: (25, 25, 0)}
    parts = await entitlements.service.admin.fetch("select count(*) from usage_seen group by xmin::text")
    assert len(parts) == 3
    assert max(row[0] for row in parts) <= 20


async def paid(entitlements: Entitlements) -> dict[str, tuple[int, int, int]]:
    """What people used, what grants paid for, and what nothing paid for."""
    query = "select subject_ref, used, granted, excess from usage_sum where subject_ref <> ''"
    rows = await entitlements.service.admin.fetch(query)
    return {row["subject_ref"]: (row["used"], row["granted"], row["excess"]) for row in rows}


async def test_a_quota_grant_pays_only_for_uses_within_it(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    await entitlements.enroll(cap=2)
    entitlements.service.clock.move(LATER)
    limited(monkeypatch, limit=0)
    for subject in (ADA, BEN):
        body = {"feature": "deep-research", "subject": subject, "amount": 5, "reason": "pilot"}
        span = {"ends_at": (LATER + DAY).isoformat()}
        assert (await entitlements.post("quota-grants", body | span)).status_code == 201
    entitlements.service.clock.move(LATER + 3 * DAY)
    within, after = LATER + DAY / 2, LATER + 2 * DAY
    await report(entitlements, used(1, ADA, within))
    await report(entitlements, used(2, ADA, after))
    await report(entitlements, used(4, BEN, after), used(3, BEN, within))
    assert await paid(entitlements) == {ADA: (2, 1, 1), BEN: (2, 1, 1)}


async def test_each_use_counts_against_the_quota_of_its_instant(entitlements: Entitlements) -> None:
    """The grant of a quota begins within the period, and the quota of the window is another one."""
    notes = NOTES | {"quota": {"limit": 4}}
    await publish(entitlements, [notes], "new-agencies")
    await entitlements.enroll(cap=2)
    for subject in (ADA, BEN):
        body = {"feature": "notes", "subject": subject, "mode": "quota", "reason": "pilot"}
        span = {"starts_at": (START + DAY).isoformat(), "ends_at": (START + 2 * DAY).isoformat()}
        assert (await entitlements.post("grants", body | span)).status_code == 201
    number = (await publish(entitlements, [notes | {"quota": {"limit": 20}}]))["number"]
    await eventually(lambda: rolled_out(entitlements, number))
    entitlements.service.clock.move(START + 3 * DAY)
    first, second = START + DAY / 2, START + DAY + DAY / 2  # the window's 20, then the grant's 4
    for subject in (ADA, BEN):
        events = [used(subject, subject, first, 10, feature="notes"), used(subject, subject, second, feature="notes")]
        for batch in [events] if subject == BEN else [[event] for event in events]:
            assert (await report(entitlements, *batch)).json()["counted"] == len(batch)
    assert await paid(entitlements) == {ADA: (11, 0, 1), BEN: (11, 0, 1)}


async def statements(entitlements: Entitlements, events: Sequence[Any]) -> int:
    """Count events in one transaction, as a worker does; returns the number of its statements."""
    uses = {place: read_use(event) for place, event in enumerate(events)}
    sent: list[str] = []
    agencies = {use.agency_id for use in uses.values()}
    async with writing(entitlements.service.runtime, agencies, BATCH_LOCK) as uow:
        with uow.connection.query_logger(lambda each: sent.append(each.query)):
            assert (await usage.count_uses(uow, uses, usage.Nearest())).counted == len(uses)
            await uow.flush()
    return len(sent)


async def test_the_seats_that_a_batch_uses_first_are_activated_together(entitlements: Entitlements) -> None:
    """In as few statements for 500 seats as for three, and each as if it were the only one."""
    service, at = entitlements.service, START + DAY
    await publish(entitlements, [CANVAS], "new-agencies")
    agencies = [replace(entitlements, agency=agency_id) for agency_id in ("DOE", "NASA", "NSF")]
    for agency in agencies:
        await agency.enroll(cap=167)
        await agency.assign_seats(167)
    await service.admin.execute("update seat set subject_ref = 'sub_' || md5(agency_id || subject_ref)")
    rows = await service.admin.fetch("select agency_id, seat_id, subject_ref from seat order by seat_id, agency_id")
    early = next(row["subject_ref"] for row in reversed(rows) if row["agency_id"] == "NASA")  # has used another seat
    await service.admin.execute("insert into seat_trial values ('NASA', $1, $2)", early, START)
    service.clock.move(at)
    events = [
        used(number, row["subject_ref"], at, agency_id=row["agency_id"], feature="canvas")
        for number, row in enumerate(rows)
    ]
    few = await statements(entitlements, events[:3])
    assert await statements(entitlements, events[3:]) == few

    activated = await published(entitlements, SeatActivated, len(rows))
    states = await published(entitlements, SubjectAccess, len(rows) + len(agencies))
    audited = await service.admin.fetch("select agency_id, subject from audit where command = 'ReportUsage'")
    assert Counter(map(tuple, audited)) == Counter((row["agency_id"], row["seat_id"]) for row in rows)
    for agency in agencies:
        own = [row for row in rows if row["agency_id"] == agency.agency]
        assert [each.data for each in activated if each.data.agency_id == agency.agency] == [
            SeatActivated(**row) for row in own
        ]
        revision = (await agency.pool())["revision"]
        active = {each.data.subject_ref: each.data for each in states if each.data.seat == "active"}
        assert [active[row["subject_ref"]] for row in own] == [
            SubjectAccess(
                agency_id=agency.agency,
                subject_ref=row["subject_ref"],
                revision=revision - 1 if place == 0 else revision,
                generation=1,
                seat="active",
                trial_began_at=START if row["subject_ref"] == early else at,
            )
            for place, row in enumerate(own)
        ]
        versions = await service.admin.fetch(
            "select state, recorded_until from seat_history where agency_id = $1", agency.agency
        )
        assert Counter(map(tuple, versions)) == {("assigned", at): len(own)}
        ends_at = (START if agency.agency == "NASA" else at) + 30 * DAY
        due = await service.admin.fetch(
            "select kind, due_at from deadline where agency_id = $1 and kind like 'seat-trial%'", agency.agency
        )
        assert dict(map(tuple, due)) == {SEAT_TRIAL_ENDS: ends_at, SEAT_TRIALS_ENDING_SOON: ends_at - 7 * DAY}

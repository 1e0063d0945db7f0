"""What a transaction writes at its end: events of many streams in order, and the last word on each deadline."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from muster_contracts.entitlements import PersonErased, PersonRecorded, SeatAssigned
from muster_runtime.database import outbox
from muster_runtime.database.array_literals import array, instants
from muster_runtime.scheduling.deadlines import Deadline, cancel, schedule, schedule_earlier
from tests.support.contexts import CONTEXT
from tests.support.services import RunningService


def seat(agency_id: str, number: int) -> SeatAssigned:
    return SeatAssigned(agency_id=agency_id, seat_id=f"seat_{number}", subject_ref="sub_1")


async def kept(probe: RunningService) -> list[tuple[Any, ...]]:
    """Every event in the outbox, in the order in which the relay reads them: stream, sequence, key and payload."""
    rows = await probe.admin.fetch("select * from outbox order by id")
    return [
        (row["topic"], row["agency_id"], row["first_sequence"] + place, row["keys"] and row["keys"][place], payload)
        for row in rows
        for place, payload in enumerate(row["payloads"])
    ]


@pytest.mark.parametrize("statement_bytes", [outbox.STATEMENT_BYTES, 100])
async def test_runs_of_many_streams_take_their_sequences_in_order(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch, statement_bytes: int
) -> None:
    monkeypatch.setattr(outbox, "STATEMENT_BYTES", statement_bytes)
    published = []
    for _ in range(2):
        async with idle_probe.runtime.database.write("NASA", "DOE", context=CONTEXT) as uow:
            for number in range(9):
                agency_id = ("NASA", "DOE", "NASA")[number % 3]
                uow.publish(seat(agency_id, number), causation_id=f"cause {number // 2}")
                published.append(seat(agency_id, number))
            uow.publish_erased(PersonErased, "NASA", ["sub_1", "sub_2"])
    events = await kept(idle_probe)
    for agency_id in ("NASA", "DOE"):
        of_agency = [event for event in events if event[:2] == (SeatAssigned.topic, agency_id)]
        expected = [event for event in published if event.agency_id == agency_id]
        assert [sequence for _, _, sequence, _, _ in of_agency] == list(range(1, len(expected) + 1))
        assert [SeatAssigned.model_validate_json(payload) for *_, payload in of_agency] == expected
    erased = [event[2:] for event in events if event[0] == PersonRecorded.topic]
    assert erased == [(1, "sub_1", None), (2, "sub_2", None), (3, "sub_1", None), (4, "sub_2", None)]


async def test_the_last_word_on_a_deadline_counts(idle_probe: RunningService) -> None:
    now = idle_probe.clock.now()
    later = now + timedelta(days=1)
    async with idle_probe.runtime.database.write("NASA", context=CONTEXT) as uow:
        schedule(uow, [Deadline("revoke", "NASA", subject, now) for subject in ("kept", "moved", "canceled")])
    async with idle_probe.runtime.database.write("NASA", context=CONTEXT) as uow:
        cancel(uow, "NASA", "revoke", ["moved", "canceled", "unknown"])
        schedule(uow, [Deadline("revoke", "NASA", "moved", later), Deadline("revoke", "NASA", "new", now)])
        schedule(uow, [Deadline("revoke", "NASA", "forgotten", now)])
        cancel(uow, "NASA", "revoke", ["forgotten"])
    rows = await idle_probe.admin.fetch("select subject, due_at from deadline order by subject")
    assert [tuple(row) for row in rows] == [("kept", now), ("moved", later), ("new", now)]


async def test_an_array_can_be_written_as_a_literal(idle_probe: RunningService) -> None:
    ask = idle_probe.admin.fetchval
    for texts in ([], [""], ["NULL", "null", ""], ["a,b", "{}", '"', "\\", '\\"', " ", "\n", "é", "'"], ['","', ""]):
        assert await ask("select $1::text::text[]", array(texts)) == texts
    assert await ask("select $1::text::bigint[]", array([0, -1, 2**63 - 1])) == [0, -1, 2**63 - 1]
    assert await ask("select $1::text::date[]", array([date(1, 1, 1), date(9999, 12, 31)])) == [date.min, date.max]
    times = [datetime(2025, 8, 6, 1, 2, 3, 4, tzinfo=UTC), *2 * [datetime(2025, 8, 6, tzinfo=UTC)]]
    assert await ask("select $1::text::timestamptz[]", array(times)) == times
    assert await ask("select $1::text::timestamptz[]", instants(times)) == times
    assert await ask("select $1::text::timestamptz[]", instants([])) == []


async def test_the_earliest_instant_of_a_deadline_counts_whatever_was_scheduled_last(
    idle_probe: RunningService,
) -> None:
    now = idle_probe.clock.now()
    earlier, later = now + timedelta(days=1), now + timedelta(days=2)
    for first, second in ((later, earlier), (earlier, later)):
        async with idle_probe.runtime.database.write("NASA", context=CONTEXT) as uow:
            for at in (first, second):
                schedule_earlier(uow, Deadline("revoke", "NASA", f"first_{first}", at))
    assert {row["due_at"] for row in await idle_probe.admin.fetch("select due_at from deadline")} == {earlier}

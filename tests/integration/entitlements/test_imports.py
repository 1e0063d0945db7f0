"""Imports over HTTP: a file is processed in chunks, and each row has its result."""

import asyncio
from collections import Counter

from muster_contracts.enrollment import AgencySuspended
from muster_contracts.entitlements import (
    PersonRecorded,
    SeatAssigned,
    SeatBatchCompleted,
    SeatLimitReached,
)
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.files import file_of, people, sums
from tests.integration.entitlements.lives import published
from tests.support.eventually import eventually

UNMAILABLE = (
    "must have 1 to 64 characters before the @: letters from a to z, digits, the signs !#$%&'*+-/=?^_`{|}~, "
    "and single dots between them"
)


async def test_a_file_gives_a_result_for_each_row(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=3)
    await entitlements.assign("held")
    accepted = await entitlements.send_file(
        b"\xef\xbb\xbfName,E-Mail Address\r\n"
        b"Ada,ada@nasa.gov\r\n"
        b'"Bob\r\nKing",bob@example.com\r\n'
        b"Held,PERSON.held@NASA.gov\r\n"
        b"only one column\r\n"
        b"Eve,eve@nasa.gov\r\n"
        b"Ada again,Ada@nasa.gov\r\n"
        b"Late,late@nasa.gov\r\n"
        b"Jos\xc3\xa9,jos\xc3\xa9@nasa.gov\r\n"
    )
    assert accepted.headers["location"].startswith("/v1/agencies/NASA/operations/bat_")
    operation = await entitlements.finished(accepted)
    assert (operation["state"], sums(operation), operation["progress"]) == ("completed", (8, 2, 2, 4), 1.0)
    results = await entitlements.results(operation)
    assert [(int(row["line"]), row["outcome"], row["reason"]) for row in results] == [
        (2, "assigned", ""),
        (3, "refused", "email must be in a .gov or .mil domain"),
        (5, "already_held", ""),
        (6, "refused", "the row must have as many columns as the header"),
        (7, "assigned", ""),
        (8, "already_held", ""),
        (9, "refused", "no seat is free"),
        (10, "refused", f"email {UNMAILABLE}"),
    ]
    assert [row["subject"] == "" for row in results] == [False, True, False, True, False, False, False, True]
    [limit] = await eventually(lambda: entitlements.service.published(SeatLimitReached))
    assert limit.data.refused == 1
    [completed] = await eventually(lambda: entitlements.service.published(SeatBatchCompleted))
    data = completed.data
    assert (data.batch_id, data.kind) == (operation["operation_id"], "import")
    assert (data.rows, data.assigned, data.already_held, data.refused, data.changed) == (8, 2, 2, 4, 0)
    kept = await entitlements.service.admin.fetch("select content from operation_chunk")
    assert [row["content"] for row in kept] == [None]


async def test_thirty_thousand_rows_go_in_chunks_and_change_nothing_when_sent_again(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=30_000)
    first = await entitlements.import_file(file_of(30_000))
    assert sums(first) == (30_000, 30_000, 0, 0)
    before = await entitlements.pool()
    again = await entitlements.import_file(file_of(30_000))
    assert sums(again) == (30_000, 0, 30_000, 0)
    assert await entitlements.pool() == before

    seats = await published(entitlements, SeatAssigned, 30_000)
    assert [event.envelope.sequence for event in seats] == list(range(1, 30_001))
    assert await entitlements.service.published(PersonRecorded) == []
    assert await entitlements.service.admin.fetchval("select count(*) from operation_chunk") > 6
    [seat] = (await entitlements.get("seats", limit="1")).json()["items"]
    assert seat["name"] == seat["email"].removesuffix("@nasa.gov").replace("person.", "Person ")


async def test_the_directory_is_told_when_asked(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=10)
    await entitlements.import_file(people(1, 2), directory=True)

    await published(entitlements, PersonRecorded, 2)


async def test_a_dry_run_says_what_would_happen_and_changes_nothing(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=12_000)
    await entitlements.import_file(people(1, 2))
    before = await entitlements.pool()
    body = "\n".join([file_of(13_000), *(f"person.{number}@nasa.gov," for number in range(10))])
    dry = await entitlements.import_file(body, dry_run=True)
    assert await entitlements.pool() == before
    wet = await entitlements.import_file(body)
    assert sums(dry) == sums(wet) == (13_010, 11_998, 12, 1_000)
    assert await entitlements.results(dry) == await entitlements.results(wet)

    async def cleared() -> bool:
        return bool(await entitlements.service.admin.fetchval("select not exists (select from dry_run_seat)"))

    await eventually(cleared)
    completed = await eventually(lambda: _published(entitlements, 2))
    assert [event.data.rows for event in completed] == [2, 13_010]


async def test_a_file_may_stop_at_the_limit_and_go_on_when_there_is_room(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=7_000)
    stopped = await entitlements.import_file(file_of(20_000), on_limit="stop")
    assert (stopped["state"], stopped["stop_reason"]) == ("stopped", "seat-cap-reached")
    assert sums(stopped) == (7_001, 7_000, 0, 1)
    assert len(await entitlements.results(stopped)) == 7_001
    filled = await entitlements.import_file(file_of(20_000), on_limit="fill")
    assert (filled["state"], sums(filled)) == ("completed", (20_000, 0, 7_000, 13_000))
    assert (await entitlements.post("pool/resize", {"cap": 20_000})).status_code == 200
    assert sums(await entitlements.import_file(file_of(20_000), on_limit="stop")) == (20_000, 13_000, 7_000, 0)


async def test_imports_at_once_take_turns_and_never_exceed_the_cap(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=12_300)
    accepted = [await entitlements.send_file(file_of(7_000 + 3_000 * n)) for n in range(4)]
    operations = await asyncio.gather(*(entitlements.finished(reply) for reply in accepted))
    assert [operation["assigned"] for operation in operations] == [7_000, 3_000, 2_300, 0]
    assert (await entitlements.pool())["in_use"] == 12_300


async def test_duplicates_in_any_form_are_one_person(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=50_000)
    forms = ["jose@nasa.gov", "JOSE@NASA.GOV", " jose@nasa.gov ", "Jose@Nasa.Gov"]
    body = "\n".join(["email", *forms * 10_000])
    operation = await entitlements.import_file(body)
    assert sums(operation) == (40_000, 1, 39_999, 0)


async def test_rows_of_an_agency_that_is_suspended_meanwhile_are_refused(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=100_000)
    accepted = await entitlements.send_file(file_of(60_000))

    async def begun() -> bool:
        return bool((await entitlements.pool())["in_use"])

    await eventually(begun)
    await entitlements.service.publish(
        AgencySuspended(agency_id="NASA", enrollment_id="enr_1", reason="atu_lapsed", suspended_at=START)
    )
    operation = await entitlements.finished(accepted)
    reasons = Counter(row["reason"] for row in await entitlements.results(operation))
    assert reasons.keys() == {"", "the seat pool is suspended"}
    assert reasons[""] == operation["assigned"] == (await entitlements.pool())["in_use"]
    assert sum(reasons.values()) == 60_000


async def test_a_full_disk_delays_the_work_and_undoes_nothing(entitlements: Entitlements) -> None:
    """Postgres reports it as SQLSTATE 53100, here from a trigger, when the results of a chunk are written."""
    await entitlements.enroll(cap=100_000)
    admin = entitlements.service.admin
    await admin.execute(
        """
        create function no_room() returns trigger language plpgsql as $$
        begin
            raise exception 'could not extend file: No space left on device' using errcode = 'disk_full';
        end $$
        """
    )
    await admin.execute(
        """
        create trigger no_room before update on operation_chunk
        for each row when (new.number >= 2) execute function no_room()
        """
    )
    accepted = await entitlements.send_file(file_of(30_000))

    async def waits() -> bool:
        reply = await entitlements.service.client.get(accepted.headers["location"])
        return bool(0.0 < reply.json()["progress"] < 1.0)

    await eventually(waits)
    partly = (await entitlements.pool())["in_use"]
    assert 0 < partly < 30_000
    await admin.execute("drop trigger no_room on operation_chunk")
    assert sums(await entitlements.finished(accepted)) == (30_000, 30_000, 0, 0)
    assert (await entitlements.pool())["in_use"] == 30_000


async def _published(entitlements: Entitlements, count: int) -> object:
    events = await entitlements.service.published(SeatBatchCompleted)
    return events if len(events) == count else None

"""Seat files over HTTP."""

import asyncio
from collections import Counter

import pytest

from muster_contracts.enrollment import AgencySuspended
from muster_contracts.entitlements import PersonRecorded, SeatAssigned, SeatLimitReached
from tests.integration.entitlements.conftest import START, Entitlements


def file_of(count: int) -> str:
    return "\n".join(["email,name", *(f"person.{number}@nasa.gov,Person {number}" for number in range(count))])


async def test_a_file_gives_a_result_for_each_row(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=3)
    await entitlements.assign("held")
    reply = await entitlements.import_file(
        b"\xef\xbb\xbfName,E-Mail Address\r\n"
        b"Ada,ada@nasa.gov\r\n"
        b'"Bob\r\nKing",bob@example.com\r\n'
        b"Held,PERSON.held@NASA.gov\r\n"
        b"only one column\r\n"
        b"Eve,eve@nasa.gov\r\n"
        b"Ada again,Ada@nasa.gov\r\n"
        b"Late,late@nasa.gov\r\n"
    )
    assert reply.status_code == 200
    body = reply.json()
    assert {key: body[key] for key in ("rows", "assigned", "already_held", "refused")} == {
        "rows": 7,
        "assigned": 2,
        "already_held": 2,
        "refused": 3,
    }
    results = [(result["line"], result["outcome"], result["reason"]) for result in body["results"]]
    assert results == [
        (2, "assigned", None),
        (3, "refused", "email: 'bob@example.com' is refused: must be of a .gov or .mil domain"),
        (5, "already_held", None),
        (6, "refused", "the row has not as many columns as the header"),
        (7, "assigned", None),
        (8, "already_held", None),
        (9, "refused", "seat-cap-reached"),
    ]
    assert [result["subject"] is None for result in body["results"]] == [False, True, False, True, False, False, False]
    [limit] = await entitlements.eventually(lambda: entitlements.service.published(SeatLimitReached))
    assert limit.data.refused == 1


async def test_ten_thousand_rows_go_in_chunks_and_again_change_nothing(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=20_000)
    first = (await entitlements.import_file(file_of(10_000))).json()
    assert (first["rows"], first["assigned"]) == (10_000, 10_000)
    before = await entitlements.pool()
    again = (await entitlements.import_file(file_of(10_000))).json()
    assert (again["assigned"], again["already_held"]) == (0, 10_000)
    assert await entitlements.pool() == before

    async def all_published() -> bool:
        return len(await entitlements.service.published(PersonRecorded)) == 10_000

    await entitlements.eventually(all_published)
    sequences = [event.envelope.sequence for event in await entitlements.service.published(SeatAssigned)]
    assert sequences == list(range(1, 10_001))
    assert await entitlements.service.admin.fetchval("select count(*) from audit") == 20


async def test_an_import_cut_off_half_way_is_completed_by_a_repetition(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=5_000)
    whole = (await entitlements.import_file(file_of(2_500), key="the import")).json()
    assert whole["assigned"] == 2_500
    # As if the process had died after the first of its three transactions.
    last = [f"person.{number}@nasa.gov" for number in range(1_000, 2_500)]
    await entitlements.service.admin.execute(
        """
        with gone as (
            delete from holder where email = any($1::text[]) returning seat_id
        )
        delete from seat where seat_id in (select seat_id from gone)
        """,
        last,
    )
    await entitlements.service.admin.execute("update pool set in_use = 1000")
    await entitlements.service.admin.execute("delete from idempotency where key <> 'the import'")

    again = (await entitlements.import_file(file_of(2_500), key="the import")).json()
    assert again == whole
    assert (await entitlements.pool())["in_use"] == 2_500


async def test_the_key_of_an_import_is_bound_to_its_file(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=10)
    assert (await entitlements.import_file(file_of(2), key="the import")).status_code == 200
    assert (await entitlements.import_file(file_of(3), key="the import")).status_code == 422
    assert (await entitlements.pool())["in_use"] == 2


async def test_imports_at_once_never_exceed_the_cap(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=2_300)
    replies = await asyncio.gather(*(entitlements.import_file(file_of(1_500 + 500 * n)) for n in range(4)))
    assert sum(reply.json()["assigned"] for reply in replies) == 2_300
    assert (await entitlements.pool())["in_use"] == 2_300


@pytest.mark.parametrize(
    "body",
    [b"", b"\xef\xbb\xbf", b"name\nAda\n", b"email\n\xff@nasa.gov\n", b'email\nada@nasa.gov\n"bob', file_of(10_001)],
)
async def test_a_file_that_cannot_be_read_changes_nothing(entitlements: Entitlements, body: bytes | str) -> None:
    await entitlements.enroll(cap=20_000)
    reply = await entitlements.import_file(body)
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["rule"]
    assert (await entitlements.pool())["in_use"] == 0


async def test_a_file_beyond_all_measure_is_refused(entitlements: Entitlements) -> None:
    assert (await entitlements.import_file(b"a" * (4 * 1024 * 1024 + 1))).status_code == 413


async def test_rows_of_a_suspended_agency_are_refused_with_that_reason(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=10)
    await entitlements.service.publish(
        AgencySuspended(agency_id="NASA", enrollment_id="enr_1", reason="atu_lapsed", suspended_at=START)
    )

    async def suspended() -> bool:
        return bool((await entitlements.pool())["state"] == "suspended")

    await entitlements.eventually(suspended)
    body = (await entitlements.import_file(file_of(3))).json()
    assert Counter(result["reason"] for result in body["results"]) == {"suspended": 3}

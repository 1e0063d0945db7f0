"""Trials that seats begin one by one: each ends at its instant, is announced by day, and happens once."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from muster_contracts.entitlements import SeatTrialExpired, SeatTrialsEndingSoon, SubjectAccess
from muster_entitlements.handlers import seat_trials
from tests.integration.entitlements.conftest import END, START, Entitlements
from tests.integration.entitlements.lives import published
from tests.integration.entitlements.test_catalog import publish, rolled_out
from tests.integration.entitlements.test_trials import enroll_again, pass_time, withdraw
from tests.support.eventually import eventually

DAY = timedelta(days=1)

CANVAS = {
    "key": "canvas",
    "name": "Canvas",
    "mode": "unlimited",
    "trial_days": 30,
    "mode_after": "none",
    "anchor": "seat",
    "ends_soon_days": [7, 1],
}


async def activate(entitlements: Entitlements, person: str, at: datetime) -> str:
    """Give a person a seat, and have them use it at an instant; returns the seat's path."""
    await pass_time(entitlements, at)
    reply = await entitlements.assign(person)
    assert reply.status_code == 201, reply.text
    seat = f"seats/{reply.json()['seat_id']}"
    assert (await entitlements.post(f"{seat}/activation")).status_code == 200
    return seat


async def reason(entitlements: Entitlements, person: str) -> tuple[str, str | None]:
    """Why a person may use the feature or not, and until when; the same from many checks at once."""
    answer = await entitlements.check(person, "canvas")
    pairs = {"pairs": [{"subject": f"person.{person}@nasa.gov", "feature": "canvas"}]}
    assert (await entitlements.post("checks", pairs)).json()["answers"] == [answer]
    return answer["reason"], answer["valid_until"]


def text(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


async def ends(entitlements: Entitlements, count: int) -> list[tuple[str, datetime]]:
    events: list[Any] = await published(entitlements, SeatTrialExpired, count)
    assert all(event.data.expired_at == event.envelope.time for event in events)
    return [(event.data.seat_id, event.envelope.time) for event in events]


async def test_each_seat_has_its_own_trial(entitlements: Entitlements) -> None:
    await publish(entitlements, [CANVAS], "new-agencies")
    await entitlements.enroll(cap=5)
    await entitlements.assign("cid")  # never activates
    noon = START + timedelta(hours=12)
    first = await activate(entitlements, "ada", noon)
    second = await activate(entitlements, "bob", noon + timedelta(hours=1))
    third = await activate(entitlements, "dee", noon + 5 * DAY)
    assert await reason(entitlements, "ada") == ("window_open", text(noon + 30 * DAY))
    assert (await reason(entitlements, "cid"))[0] == "window_open"
    assert await entitlements.service.admin.fetchval("select count(*) from deadline") == 2

    await pass_time(entitlements, noon + 30 * DAY)
    assert await ends(entitlements, 1) == [(first[6:], noon + 30 * DAY)]
    assert (await reason(entitlements, "ada"))[0] == "window_closed"
    assert (await reason(entitlements, "bob"))[0] == "window_open"
    await pass_time(entitlements, noon + 40 * DAY)
    assert await ends(entitlements, 3) == [
        (first[6:], noon + 30 * DAY),
        (second[6:], noon + 30 * DAY + timedelta(hours=1)),
        (third[6:], noon + 35 * DAY),
    ]
    notices: list[Any] = await published(entitlements, SeatTrialsEndingSoon, 4)
    assert [
        (event.envelope.time - START, [(each.days_left, each.seats) for each in event.data.ending]) for event in notices
    ] == [(23 * DAY, [(7, 2)]), (28 * DAY, [(7, 1)]), (29 * DAY, [(1, 2)]), (34 * DAY, [(1, 1)])]
    assert (await reason(entitlements, "cid"))[0] == "window_open"
    assert await entitlements.service.admin.fetchval("select count(*) from deadline") == 0


async def test_nobody_has_a_second_trial(entitlements: Entitlements) -> None:
    """By a transfer, a new seat, or a new enrollment: what began continues, for the seat and for the person."""
    await publish(entitlements, [CANVAS], "new-agencies")
    await entitlements.enroll(cap=5)
    seat = await activate(entitlements, "ada", START)
    await pass_time(entitlements, START + 10 * DAY)
    transfer = await entitlements.post(f"{seat}/transfer", {"email": "person.bob@nasa.gov"})
    assert transfer.status_code == 200, transfer.text
    await entitlements.post(f"{seat}/activation")
    assert await reason(entitlements, "bob") == ("window_open", text(START + 30 * DAY))  # the seat's
    again = await activate(entitlements, "ada", START + 11 * DAY)
    assert await reason(entitlements, "ada") == ("window_open", text(START + 30 * DAY))  # her own
    await entitlements.post(f"{again}/revocation", {})
    await activate(entitlements, "ada", START + 12 * DAY)
    assert await reason(entitlements, "ada") == ("window_open", text(START + 30 * DAY))
    await activate(entitlements, "cid", START + 12 * DAY)

    await withdraw(entitlements, "enr_1", START + 14 * DAY)
    later = START + 20 * DAY
    await pass_time(entitlements, later)
    await enroll_again(entitlements, 2, later)
    assert (await entitlements.post("pool/resize", {"cap": 5})).status_code == 200
    ada = await activate(entitlements, "ada", later)
    cid = await activate(entitlements, "cid", START + 35 * DAY)
    assert await reason(entitlements, "ada") == ("window_closed", text(later + 365 * DAY))
    assert await reason(entitlements, "cid") == ("window_open", text(START + 42 * DAY))
    await pass_time(entitlements, START + 50 * DAY)
    assert await ends(entitlements, 2) == [(ada[6:], START + 30 * DAY), (cid[6:], START + 42 * DAY)]
    await activate(entitlements, "bob", START + 50 * DAY)
    assert (await reason(entitlements, "bob"))[0] == "window_closed"


async def test_people_who_never_used_a_seat_have_their_own_trial(entitlements: Entitlements) -> None:
    """They lost a seat whose trial another person had begun."""
    await publish(entitlements, [CANVAS], "new-agencies")
    await entitlements.enroll(cap=5)
    seats = [await activate(entitlements, person, START) for person in ("ada", "cid")]
    await pass_time(entitlements, START + 40 * DAY)
    for seat, person in zip(seats, ("bob", "dee"), strict=True):
        transfer = await entitlements.post(f"{seat}/transfer", {"email": f"person.{person}@nasa.gov"})
        assert transfer.status_code == 200, transfer.text
        assert (await entitlements.post(f"{seat}/revocation", {})).status_code == 200
    await entitlements.assign("bob")
    await entitlements.import_file("email\nperson.dee@nasa.gov\n")
    for person in ("bob", "dee"):
        assert await reason(entitlements, person) == ("window_open", text(END)), person
    subjects = "select seat_id from seat where state <> 'revoked'"
    for row in await entitlements.service.admin.fetch(subjects):
        await entitlements.post(f"seats/{row['seat_id']}/activation")
    for person in ("bob", "dee"):
        assert await reason(entitlements, person) == ("window_open", text(START + 70 * DAY)), person


async def test_a_new_seat_has_what_is_left_of_its_persons_trial_before_its_first_use(
    entitlements: Entitlements,
) -> None:
    """Even if nobody reports any use: checks alone give no second trial, nor do the copies."""
    await publish(entitlements, [CANVAS], "new-agencies")
    await entitlements.enroll(cap=9)
    for person in ("ada", "ben", "cid", "dee"):
        seat = await activate(entitlements, person, START)
        await entitlements.post(f"{seat}/revocation", {})
    other, spare = [f"seats/{(await entitlements.assign(person)).json()['seat_id']}" for person in ("eve", "fay")]
    await pass_time(entitlements, START + 20 * DAY)
    until = text(START + 30 * DAY)
    assert (await entitlements.assign("ada")).status_code == 201
    assert (await entitlements.post(f"{other}/transfer", {"email": "person.ben@nasa.gov"})).status_code == 200
    await entitlements.import_file("email\nperson.cid@nasa.gov\nperson.new@nasa.gov\n")
    await entitlements.import_file("from,to\nperson.fay@nasa.gov,person.dee@nasa.gov\n", "seat-transfers")
    for person in ("ada", "ben", "cid", "dee"):
        assert await reason(entitlements, person) == ("window_open", until), person
    assert (await reason(entitlements, "new"))[1] == text(END)

    async def begun_are_published() -> bool:
        records = await entitlements.service.published(SubjectAccess)
        latest = {event.data.subject_ref: event.data.trial_began_at for event in records}
        return list(latest.values()).count(START) == 4

    await eventually(begun_are_published)
    await pass_time(entitlements, START + 30 * DAY)
    found = await ends(entitlements, 4)
    assert {other[6:], spare[6:]} < {seat_id for seat_id, _ in found}
    assert {at for _, at in found} == {START + 30 * DAY}
    for person in ("ada", "ben", "cid", "dee"):
        assert (await reason(entitlements, person))[0] == "window_closed", person


async def test_many_trials_that_end_at_one_instant_end_in_steps(entitlements: Entitlements, monkeypatch: Any) -> None:
    monkeypatch.setattr(seat_trials, "STEP_SEATS", 7)
    await publish(entitlements, [CANVAS], "new-agencies")
    await entitlements.enroll(cap=100)
    await entitlements.assign_seats(100)
    await activate_rest(entitlements)
    await pass_time(entitlements, START + 31 * DAY)
    found = await ends(entitlements, 100)
    assert len({seat_id for seat_id, _ in found}) == 100
    assert {at for _, at in found} == {START + 30 * DAY}


async def activate_rest(entitlements: Entitlements) -> None:
    """Have all seats activated at the start, one of them by its route, which schedules the end."""
    await entitlements.service.admin.execute(
        "update seat set state = 'active', activated_at = $1 where email <> 'person.0@nasa.gov'", START
    )
    seat_id = await entitlements.service.admin.fetchval("select seat_id from seat where email = 'person.0@nasa.gov'")
    assert (await entitlements.post(f"seats/{seat_id}/activation")).status_code == 200


async def test_the_end_of_a_seats_trial_is_told_once_after_a_completed_term(entitlements: Entitlements) -> None:
    """The window of the term that is over announces nothing about the seats of the next enrollment."""
    service = entitlements.service
    await publish(entitlements, [CANVAS], "new-agencies")
    await entitlements.enroll(cap=5)
    began = END - 10 * DAY
    await activate(entitlements, "ada", began)
    await pass_time(entitlements, END)
    await service.publish(entitlements.term(), entitlements.term_ended())
    over = "select ended and revoking = 0 and not exists (select from closing) from pool"
    await eventually(lambda: service.admin.fetchval(over))
    again = END + 2 * DAY
    await pass_time(entitlements, again)
    await enroll_again(entitlements, 2, again)
    assert (await entitlements.post("pool/resize", {"cap": 5})).status_code == 200
    seat = await activate(entitlements, "ada", again)
    assert await reason(entitlements, "ada") == ("window_open", text(began + 30 * DAY))
    await activate(entitlements, "bob", again)
    await pass_time(entitlements, began + 31 * DAY)
    await pass_time(entitlements, again + 31 * DAY)
    found = await ends(entitlements, 2)
    assert found[0] == (seat[6:], began + 30 * DAY)
    notices: list[Any] = await published(entitlements, SeatTrialsEndingSoon, 4)
    assert [event.envelope.time - END for event in notices] == [13 * DAY, 19 * DAY, 25 * DAY, 31 * DAY]


async def test_the_trials_of_a_removed_feature_end_with_its_window_at_the_latest(entitlements: Entitlements) -> None:
    """Even if the term is renewed: no trial is announced after that, and no later one begins."""
    await publish(entitlements, [CANVAS], "new-agencies")
    await entitlements.enroll(cap=5)
    first = await activate(entitlements, "ada", END - 35 * DAY)
    second = await activate(entitlements, "bob", END - 10 * DAY)
    third = await activate(entitlements, "cid", END - 9 * DAY)
    await publish(entitlements, [CANVAS | {"key": "other", "anchor": "agency"}])
    await eventually(lambda: rolled_out(entitlements, 3))
    await entitlements.service.publish(entitlements.term(), entitlements.renewal("accepted"))
    await eventually(lambda: entitlements.service.admin.fetchval("select ends_at > $1 from pool", END))
    assert await reason(entitlements, "bob") == ("window_open", text(END))
    await pass_time(entitlements, END + 2 * DAY)
    await activate(entitlements, "dee", END + 2 * DAY)
    await pass_time(entitlements, END + 60 * DAY)
    assert await ends(entitlements, 3) == [(first[6:], END - 5 * DAY), (second[6:], END), (third[6:], END)]
    notices: list[Any] = await published(entitlements, SeatTrialsEndingSoon, 4)
    assert [(event.envelope.time - END, event.data.ending[0].seats) for event in notices] == [
        (-12 * DAY, 1),
        (-7 * DAY, 2),
        (-6 * DAY, 1),
        (-1 * DAY, 2),
    ]
    assert await entitlements.service.admin.fetchval("select count(*) from deadline where kind like 'seat-trial%'") == 0


@pytest.mark.parametrize("next_end", [-10, 0])
async def test_after_an_outage_no_trial_ends_that_a_version_of_the_term_has_made_longer(
    entitlements: Entitlements, next_end: int
) -> None:
    """Whether the next end is before the version, or at its instant."""
    await publish(entitlements, [CANVAS], "new-agencies")
    await entitlements.enroll(cap=5)
    first = await activate(entitlements, "ada", END - 40 * DAY)
    with_the_term = await activate(entitlements, "cid", END - 30 * DAY)
    second = await activate(entitlements, "bob", END - 20 * DAY)
    await publish(entitlements, [CANVAS | {"trial_days": 60}], "next-term")
    waits = "select next_number = 3 from agency_catalog"
    await eventually(lambda: entitlements.service.admin.fetchval(waits))
    await entitlements.service.publish(entitlements.term(), entitlements.renewal("accepted"))
    await eventually(lambda: entitlements.service.admin.fetchval("select ends_at > $1 from pool", END))
    await pass_time(entitlements, END + (next_end - 1) * DAY)
    entitlements.service.clock.move(END + 15 * DAY)  # nobody has looked since
    await pass_time(entitlements, END + 60 * DAY)
    assert (
        await ends(entitlements, 5)
        == [
            (first[6:], END - 10 * DAY),
            (with_the_term[6:], END),  # before the version comes
            (first[6:], END + 20 * DAY),  # it continued
            (with_the_term[6:], END + 30 * DAY),
            (second[6:], END + 40 * DAY),
        ]
    )


async def test_the_trials_that_end_before_a_late_version_is_handled_are_told(entitlements: Entitlements) -> None:
    """Of a window that it opens, and of one whose trials it makes longer."""
    longer = {"key": "longer", "trial_days": 5}
    await publish(entitlements, [CANVAS | longer], "new-agencies")
    await entitlements.enroll(cap=5)
    await publish(entitlements, [CANVAS, CANVAS | longer | {"trial_days": 30}], "next-term")
    waits = "select next_number = 3 from agency_catalog"
    await eventually(lambda: entitlements.service.admin.fetchval(waits))
    await entitlements.service.publish(entitlements.term(), entitlements.renewal("accepted"))
    await eventually(lambda: entitlements.service.admin.fetchval("select ends_at > $1 from pool", END))
    seat = await activate(entitlements, "ada", END - 30 * DAY + timedelta(hours=1))
    await pass_time(entitlements, END - DAY)
    entitlements.service.clock.move(END + timedelta(hours=6))
    found: list[Any] = await published(entitlements, SeatTrialExpired, 3)
    assert sorted((event.envelope.time - END, event.data.feature, event.data.seat_id) for event in found) == [
        (timedelta(hours=1) - 25 * DAY, "longer", seat[6:]),
        (timedelta(hours=1), "canvas", seat[6:]),
        (timedelta(hours=1), "longer", seat[6:]),
    ]

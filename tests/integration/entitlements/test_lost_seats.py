"""Trials of people who lose a seat and get another: no part comes twice, and no end is published as another's."""

from datetime import timedelta

from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_catalog import publish
from tests.integration.entitlements.test_rollouts import park, retry_parked
from tests.integration.entitlements.test_seat_trials import CANVAS, activate, ends, reason, text
from tests.integration.entitlements.test_trials import pass_time

DAY = timedelta(days=1)


async def transfer(entitlements: Entitlements, seat: str, person: str) -> None:
    reply = await entitlements.post(f"{seat}/transfer", {"email": f"person.{person}@nasa.gov"})
    assert reply.status_code == 200, reply.text


async def test_no_end_is_told_of_a_seat_that_its_person_got_after_the_trial(entitlements: Entitlements) -> None:
    """Not even weeks later, with the end of another seat's trial."""
    await publish(entitlements, [CANVAS], "new-agencies")
    await entitlements.enroll(cap=5)
    first = await activate(entitlements, "zoe", START)
    lost = await activate(entitlements, "ada", START + 10 * DAY)
    await entitlements.post(f"{lost}/revocation", {})
    other = await activate(entitlements, "bob", START + 35 * DAY)
    await pass_time(entitlements, START + 50 * DAY)
    assert (await entitlements.assign("ada")).status_code == 201
    assert (await reason(entitlements, "ada"))[0] == "window_closed"
    await pass_time(entitlements, START + 66 * DAY)
    assert await ends(entitlements, 2) == [(first[6:], START + 30 * DAY), (other[6:], START + 65 * DAY)]


async def test_an_end_that_is_handled_late_is_not_told_to_who_got_the_seat_since_then(
    entitlements: Entitlements,
) -> None:
    await publish(entitlements, [CANVAS], "new-agencies")
    await entitlements.enroll(cap=5)
    seat = await activate(entitlements, "ada", START)
    other = await activate(entitlements, "cid", START + DAY)
    await pass_time(entitlements, START + 29 * DAY)
    await park(entitlements, "seat-trial-ends", START + 29 * DAY)
    entitlements.service.clock.move(START + 31 * DAY)
    await transfer(entitlements, seat, "bob")
    await retry_parked(entitlements, "seat-trial-ends")
    assert await ends(entitlements, 1) == [(other[6:], START + 31 * DAY)]


async def test_of_several_seats_that_a_person_lost_the_trial_that_began_first_counts(
    entitlements: Entitlements,
) -> None:
    """Even if they lost that seat last."""
    await publish(entitlements, [CANVAS], "new-agencies")
    await entitlements.enroll(cap=5)
    began_first = await activate(entitlements, "cid", START)
    lost_first = await activate(entitlements, "ada", START + 20 * DAY)
    await transfer(entitlements, lost_first, "bob")
    await transfer(entitlements, began_first, "ada")
    assert (await entitlements.post(f"{began_first}/activation")).status_code == 200
    await entitlements.import_file("from,to\nperson.ada@nasa.gov,person.dee@nasa.gov\n", "seat-transfers")
    assert (await entitlements.assign("ada")).status_code == 201
    assert await reason(entitlements, "ada") == ("window_open", text(START + 30 * DAY))


async def test_a_seat_whose_trial_began_later_gives_its_new_person_no_second_trial(
    entitlements: Entitlements,
) -> None:
    await publish(entitlements, [CANVAS], "new-agencies")
    await entitlements.enroll(cap=5)
    for person in ("ada", "ben"):
        seat = await activate(entitlements, person, START)
        await entitlements.post(f"{seat}/revocation", {})
    seat, _ = [await activate(entitlements, person, START + 20 * DAY) for person in ("cid", "dee")]
    await transfer(entitlements, seat, "ada")
    await entitlements.import_file("from,to\nperson.dee@nasa.gov,person.ben@nasa.gov\n", "seat-transfers")
    for person in ("ada", "ben"):
        assert await reason(entitlements, person) == ("window_open", text(START + 30 * DAY)), person

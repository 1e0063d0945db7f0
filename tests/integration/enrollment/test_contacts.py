"""Whose contact is replaced, or whose agency has left, is written to no more and kept nowhere."""

from datetime import datetime

from muster_contracts.billing import TermEnded, TermEndReason
from muster_contracts.enrollment import ContactErased, ContactRecorded
from muster_enrollment.domain.rules import FAREWELL, SIGNED_AHEAD
from tests.integration.enrollment.programme import DAY, INSTANT, START, Programme, acceptance, authorization, enrollment
from tests.support.eventually import eventually


async def erased(programme: Programme) -> list[tuple[str, datetime]]:
    """Who was erased on the directory's topic, with the time of it, once the relay has sent all."""
    await programme.facts("NASA")
    return [(event.data.subject_ref, event.envelope.time) for event in await programme.service.published(ContactErased)]


async def contacts(programme: Programme) -> dict[str, str]:
    """The reference of each role's latest contact."""
    await programme.facts("NASA")
    return {c.data.role: c.data.subject_ref for c in await programme.service.published(ContactRecorded)}


async def people_kept(programme: Programme) -> int:
    """How many rows of the service's tables name an invented person."""
    admin = programme.service.admin
    tables = await admin.fetch("select table_name from information_schema.tables where table_schema = 'enrollment'")
    return sum(
        [
            await admin.fetchval(f"select count(*) from {table} as t where t::text ilike '%invented%'")
            for (table,) in tables
        ]
    )


async def test_contacts_of_an_agency_that_withdrew_are_erased_once_the_last_words_were_said(
    programme: Programme,
) -> None:
    await programme.activate("NASA")
    known = await contacts(programme)
    assert await people_kept(programme) == 2
    await programme.move(START + 3 * DAY)
    assert (await programme.withdraw("NASA")).status_code == 200
    await programme.move(START + 3 * DAY + FAREWELL - INSTANT)
    assert await erased(programme) == []
    await programme.move(START + 3 * DAY + FAREWELL)
    at = START + 3 * DAY + FAREWELL
    assert sorted(await erased(programme)) == sorted((ref, at) for ref in known.values())
    assert await people_kept(programme) == 0


async def test_contacts_are_erased_after_the_last_term(programme: Programme) -> None:
    year_end = START + 365 * DAY
    await programme.activate("NASA", authorization(end=year_end + 90 * DAY))
    known = await contacts(programme)
    await programme.move(year_end)
    await programme.service.publish(
        TermEnded(agency_id="NASA", term_id="term_1", reason=TermEndReason.COMPLETED, renewed=False, ended_at=year_end)
    )

    async def has_ended() -> bool:
        return await programme.state("NASA") == "ended"

    await eventually(has_ended)
    assert await erased(programme) == []
    await programme.move(year_end + FAREWELL)
    assert {ref for ref, _ in await erased(programme)} == set(known.values())
    assert await people_kept(programme) == 0


async def test_a_new_enrollment_replaces_the_administrator_and_keeps_the_signer(programme: Programme) -> None:
    await programme.activate("NASA")
    first = await contacts(programme)
    await programme.withdraw("NASA")
    contact = {"name": "Jo Invented", "email": "jo.invented@nasa.gov"}
    again = await programme.post("NASA", "enrollments", enrollment(contact=contact))
    assert again.json()["state"] == "active"
    assert await erased(programme) == [(first["administrator"], START)]
    await programme.move(START + 2 * FAREWELL)
    assert len(await erased(programme)) == 1
    assert await people_kept(programme) == 2


async def test_a_second_withdrawal_leaves_its_whole_time_for_the_last_words(programme: Programme) -> None:
    await programme.activate("NASA")
    await programme.withdraw("NASA")
    await programme.move(START + FAREWELL / 2)
    await programme.post("NASA", "enrollments", enrollment())
    await programme.withdraw("NASA")
    await programme.move(START + FAREWELL)
    assert len(await erased(programme)) == 1  # the one who was replaced
    await programme.move(START + FAREWELL / 2 + FAREWELL)
    assert len(await erased(programme)) == 3


async def test_a_signer_waits_for_an_enrollment_only_for_a_time(programme: Programme) -> None:
    await programme.post("NASA", "data-use-acceptances", acceptance())
    signer = (await contacts(programme))["signer"]
    await programme.move(START + SIGNED_AHEAD - INSTANT)
    assert await erased(programme) == []
    await programme.move(START + SIGNED_AHEAD)
    assert await erased(programme) == [(signer, START + SIGNED_AHEAD)]
    assert await people_kept(programme) == 0


async def test_a_signer_whose_enrollment_is_submitted_in_time_stays_with_it(programme: Programme) -> None:
    await programme.post("NASA", "data-use-acceptances", acceptance())
    await programme.move(START + 2 * DAY)
    await programme.post("NASA", "enrollments", enrollment())
    await programme.move(START + 2 * SIGNED_AHEAD)
    assert await erased(programme) == []
    await programme.withdraw("NASA")
    await programme.move(START + 2 * SIGNED_AHEAD + FAREWELL)
    assert len(await erased(programme)) == 2
    assert await people_kept(programme) == 0


async def test_who_signs_after_a_withdrawal_waits_for_the_next_enrollment(programme: Programme) -> None:
    await programme.post("NASA", "enrollments", enrollment())
    await programme.withdraw("NASA")
    signed_at = START + FAREWELL / 2
    await programme.move(signed_at)
    await programme.post("NASA", "data-use-acceptances", acceptance())
    known = await contacts(programme)
    await programme.move(START + FAREWELL)
    assert await erased(programme) == [(known["administrator"], START + FAREWELL)]
    await programme.move(signed_at + SIGNED_AHEAD)
    assert [ref for ref, _ in await erased(programme)] == [known["administrator"], known["signer"]]
    assert await people_kept(programme) == 0

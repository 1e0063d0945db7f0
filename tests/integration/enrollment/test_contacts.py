"""A contact who is replaced, or whose agency has left, gets no more messages and is erased."""

from datetime import datetime

from muster_contracts.billing import TermEnded, TermEndReason
from muster_contracts.enrollment import ContactErased, ContactRecorded
from tests.integration.enrollment.program import DAY, INSTANT, START, Program, acceptance, authorization, enrollment
from tests.support.eventually import eventually

CONTACT_RETENTION, SIGNER_RETENTION = DAY, 90 * DAY


async def erased(program: Program) -> list[tuple[str, datetime]]:
    """The references and times of the erasures on the directory's topic, once the relay has sent everything."""
    await program.facts("NASA")
    return [(event.data.subject_ref, event.envelope.time) for event in await program.service.published(ContactErased)]


async def contacts(program: Program) -> dict[str, str]:
    """The reference of each role's latest contact."""
    await program.facts("NASA")
    return {c.data.role: c.data.subject_ref for c in await program.service.published(ContactRecorded)}


async def people_kept(program: Program) -> int:
    """How many rows of the service's tables name an invented person."""
    admin = program.service.admin
    tables = await admin.fetch("select table_name from information_schema.tables where table_schema = 'enrollment'")
    return sum(
        [
            await admin.fetchval(f"select count(*) from {table} as t where t::text ilike '%invented%'")
            for (table,) in tables
        ]
    )


async def test_contacts_are_erased_after_the_final_messages_of_a_withdrawal(program: Program) -> None:
    await program.activate("NASA")
    known = await contacts(program)
    assert await people_kept(program) == 2
    await program.move(START + 3 * DAY)
    assert (await program.withdraw("NASA")).status_code == 200
    await program.move(START + 3 * DAY + CONTACT_RETENTION - INSTANT)
    assert await erased(program) == []
    await program.move(START + 3 * DAY + CONTACT_RETENTION)
    at = START + 3 * DAY + CONTACT_RETENTION
    assert sorted(await erased(program)) == sorted((ref, at) for ref in known.values())
    assert await people_kept(program) == 0


async def test_contacts_are_erased_after_the_last_term(program: Program) -> None:
    year_end = START + 365 * DAY
    await program.activate("NASA", authorization(end=year_end + 90 * DAY))
    known = await contacts(program)
    await program.move(year_end)
    await program.service.publish(
        TermEnded(agency_id="NASA", term_id="term_1", reason=TermEndReason.COMPLETED, renewed=False, ended_at=year_end)
    )

    async def has_ended() -> bool:
        return await program.state("NASA") == "ended"

    await eventually(has_ended)
    assert await erased(program) == []
    await program.move(year_end + CONTACT_RETENTION)
    assert {ref for ref, _ in await erased(program)} == set(known.values())
    assert await people_kept(program) == 0


async def test_a_new_enrollment_replaces_the_administrator_and_keeps_the_signer(program: Program) -> None:
    await program.activate("NASA")
    first = await contacts(program)
    await program.withdraw("NASA")
    contact = {"name": "Jo Invented", "email": "jo.invented@nasa.gov"}
    again = await program.post("NASA", "enrollments", enrollment(contact=contact))
    assert again.json()["state"] == "active"
    assert await erased(program) == [(first["administrator"], START)]
    await program.move(START + 2 * CONTACT_RETENTION)
    assert len(await erased(program)) == 1
    assert await people_kept(program) == 2


async def test_a_second_withdrawal_leaves_the_full_time_for_the_final_messages(program: Program) -> None:
    await program.activate("NASA")
    await program.withdraw("NASA")
    await program.move(START + CONTACT_RETENTION / 2)
    await program.post("NASA", "enrollments", enrollment())
    await program.withdraw("NASA")
    await program.move(START + CONTACT_RETENTION)
    assert len(await erased(program)) == 1  # the contact who was replaced
    await program.move(START + CONTACT_RETENTION / 2 + CONTACT_RETENTION)
    assert len(await erased(program)) == 3


async def test_a_signer_without_an_enrollment_is_kept_for_a_limited_time(program: Program) -> None:
    await program.post("NASA", "data-use-acceptances", acceptance())
    signer = (await contacts(program))["signer"]
    await program.move(START + SIGNER_RETENTION - INSTANT)
    assert await erased(program) == []
    await program.move(START + SIGNER_RETENTION)
    assert await erased(program) == [(signer, START + SIGNER_RETENTION)]
    assert await people_kept(program) == 0


async def test_a_signer_whose_enrollment_is_submitted_in_time_stays_with_it(program: Program) -> None:
    await program.post("NASA", "data-use-acceptances", acceptance())
    await program.move(START + 2 * DAY)
    await program.post("NASA", "enrollments", enrollment())
    await program.move(START + 2 * SIGNER_RETENTION)
    assert await erased(program) == []
    await program.withdraw("NASA")
    await program.move(START + 2 * SIGNER_RETENTION + CONTACT_RETENTION)
    assert len(await erased(program)) == 2
    assert await people_kept(program) == 0


async def test_a_signer_after_a_withdrawal_is_kept_for_the_next_enrollment(program: Program) -> None:
    await program.post("NASA", "enrollments", enrollment())
    await program.withdraw("NASA")
    signed_at = START + CONTACT_RETENTION / 2
    await program.move(signed_at)
    await program.post("NASA", "data-use-acceptances", acceptance())
    known = await contacts(program)
    await program.move(START + CONTACT_RETENTION)
    assert await erased(program) == [(known["administrator"], START + CONTACT_RETENTION)]
    await program.move(signed_at + SIGNER_RETENTION)
    assert [ref for ref, _ in await erased(program)] == [known["administrator"], known["signer"]]
    assert await people_kept(program) == 0

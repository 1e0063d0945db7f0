"""What happens as time passes: authorizations start and end, and terms end."""

from datetime import datetime

import pytest

from muster_contracts import ClockMoved
from muster_contracts.billing import TermEnded, TermEndReason
from muster_contracts.enrollment import AgencyEnrolled, AgencySuspended
from muster_enrollment.bootstrap import build
from muster_enrollment.settings import EnrollmentSettings
from muster_runtime.process.roles import ALL_ROLES, Role
from tests.integration.enrollment.program import (
    DAY,
    INSTANT,
    REGISTER,
    START,
    Program,
    acceptance,
    authorization,
    enrollment,
)
from tests.support.eventually import eventually
from tests.support.failover import fail_over, finish_comparison
from tests.support.services import ServiceRunner

END = START + 30 * DAY


async def test_a_lapse_suspends_at_its_instant_and_a_new_authorization_reinstates(program: Program) -> None:
    await program.activate("NASA", authorization(end=END))
    await program.move(END - INSTANT)
    assert await program.state("NASA") == "active"
    await program.move(END + 5 * DAY)
    assert await program.state("NASA") == "suspended"
    await program.post("NASA", "authorizations", authorization(END, END + 60 * DAY))
    assert await program.state("NASA") == "active"
    assert (await program.facts("NASA"))[3:] == [
        ("AgencyEnrolled", START),
        ("AtuLapsed", END),
        ("AgencySuspended", END),
        ("AtuRecorded", END + 5 * DAY),
        ("AgencyReinstated", END + 5 * DAY),
    ]


async def test_late_ends_of_several_authorizations_are_published_in_the_order_of_their_instants(
    program: Program,
) -> None:
    await program.activate("NASA", authorization(end=END))
    for start, end in ((END + DAY, END + 2 * DAY), (END + 3 * DAY, END + 60 * DAY)):
        await program.post("NASA", "authorizations", authorization(start, end))
    before = len(await program.facts("NASA"))
    await program.move(END + 4 * DAY)
    assert (await program.facts("NASA"))[before:] == [
        ("AtuLapsed", END),
        ("AgencySuspended", END),
        ("AgencyReinstated", END + DAY),
        ("AtuLapsed", END + 2 * DAY),
        ("AgencySuspended", END + 2 * DAY),
        ("AgencyReinstated", END + 3 * DAY),
    ]


async def test_an_authorization_counts_from_its_start(program: Program) -> None:
    start = START + 10 * DAY
    await program.post("NASA", "enrollments", enrollment())
    await program.post("NASA", "data-use-acceptances", acceptance())
    await program.post("NASA", "authorizations", authorization(start, END))
    assert await program.state("NASA") == "submitted"
    await program.move(start)
    assert await program.state("NASA") == "active"
    assert (await program.facts("NASA"))[-1] == ("AgencyEnrolled", start)
    (enrolled,) = await program.service.published(AgencyEnrolled)
    assert (enrolled.data.starts_at, enrolled.data.ends_at) == (start, start + 365 * DAY)


async def test_authorizations_that_meet_leave_no_gap(program: Program) -> None:
    await program.activate("NASA", authorization(end=END), authorization(END, END + 30 * DAY))
    await program.move(END)
    assert await program.state("NASA") == "active"
    await program.move(END + 30 * DAY)
    assert (await program.facts("NASA"))[-2:] == [
        ("AtuLapsed", END + 30 * DAY),
        ("AgencySuspended", END + 30 * DAY),
    ]
    assert len(await program.facts("NASA")) == 7


async def test_a_lapse_before_the_activation_suspends_nobody(program: Program) -> None:
    await program.post("NASA", "enrollments", enrollment())
    await program.post("NASA", "authorizations", authorization(end=END))
    await program.move(END)
    assert await program.state("NASA") == "submitted"
    assert (await program.facts("NASA"))[-1] == ("AtuLapsed", END)


@pytest.mark.parametrize(
    ("now", "valid_from"),
    [(END + INSTANT, END + INSTANT), (END + INSTANT, END), (END, END)],
    ids=["after the end", "without a gap", "at the end"],
)
async def test_a_command_first_handles_an_end_that_the_scheduler_has_not(
    run_service: ServiceRunner, now: datetime, valid_from: datetime
) -> None:
    service = await run_service(build, EnrollmentSettings, roles=ALL_ROLES - {Role.SCHEDULER})
    program = Program(service)
    service.clock.move(START)
    await program.import_register(REGISTER)
    await program.activate("NASA", authorization(end=END))
    # Through the topic, so that the second process also starts at this time.
    moved = ClockMoved(now=now)
    await service.producer.put_raw(
        moved.topic, key=None, value=moved.model_dump_json().encode(), headers=[("ce_type", moved.event_type.encode())]
    )
    await eventually(lambda: service.clock.now() == moved.now)
    await program.post("NASA", "authorizations", authorization(valid_from, END + 30 * DAY))
    assert await program.state("NASA") == "active"

    await run_service(build, EnrollmentSettings, roles=frozenset({Role.SCHEDULER}), beside=service)
    await program.move(now)
    assert await program.state("NASA") == "active"
    assert (await program.facts("NASA"))[4:] == [
        ("AgencySuspended", END),
        ("AtuRecorded", now),
        ("AgencyReinstated", now),
        ("AtuLapsed", END),
    ]


async def test_while_deadlines_are_held_the_authorization_that_follows_a_lapsed_one_can_be_recorded_again(
    program: Program,
) -> None:
    """It was recorded in time, and lost in a restore. Until it is here again, no other command suspends the agency."""
    await program.activate("NASA", authorization(end=END))
    await program.service.admin.execute("update epoch set deadlines_held_since = $1", END - DAY)
    program.service.clock.move(END + DAY)
    for follower in (authorization(END + 30 * DAY, END + 60 * DAY), authorization(END, END + 30 * DAY)):
        reply = await program.post("NASA", "authorizations", follower)
        assert (reply.status_code, await program.state("NASA")) == (201, "active"), reply.text

    reply = await program.service.client.post("/v1/deadlines/release", json={"reason": "all was repeated"})
    assert reply.status_code == 200, reply.text
    await program.move(END + 2 * DAY)
    assert await program.state("NASA") == "active"
    assert (await program.facts("NASA"))[4:] == [("AtuRecorded", END + DAY), ("AtuRecorded", END + DAY)]


@pytest.mark.parametrize("doubt", ["held", "not compared"])
async def test_an_authorization_after_a_gap_reinstates_at_its_start_once_the_facts_are_certain(
    program: Program, doubt: str
) -> None:
    """It is recorded while the facts are in doubt, after its start."""
    admin = program.service.admin
    await program.activate("NASA", authorization(end=END))
    await program.activate("DOE", authorization(end=END))
    if doubt == "held":
        await admin.execute("update epoch set deadlines_held_since = $1", END - DAY)
    else:
        await fail_over(admin)
    program.service.clock.move(END + 3 * DAY)
    for agency in ("NASA", "DOE"):
        reply = await program.post(agency, "authorizations", authorization(END + DAY, END + 60 * DAY))
        assert (reply.status_code, await program.state(agency)) == (201, "active"), reply.text
    revoked = f"authorizations/{reply.json()['authorization_id']}/revocation"
    await program.post("DOE", "authorizations", authorization(END + 2 * DAY, END + 60 * DAY))
    assert (await program.post("DOE", revoked, {"reason": "misused"})).status_code == 200
    assert await program.state("DOE") == "active"

    if doubt == "held":
        reply = await program.service.client.post("/v1/deadlines/release", json={"reason": "all was repeated"})
        assert reply.status_code == 200, reply.text
    else:
        await finish_comparison(admin)
    await program.move(END + 4 * DAY)
    for agency in ("NASA", "DOE"):
        assert await program.state(agency) == "active"
        assert (await program.facts(agency))[-3:] == [
            ("AtuLapsed", END),
            ("AgencySuspended", END),
            ("AgencyReinstated", END + DAY),
        ]


async def test_while_deadlines_are_held_a_revocation_suspends_and_a_lapse_waits_for_the_release(
    program: Program,
) -> None:
    await program.activate("NASA", authorization(end=END))
    await program.activate("DOE", authorization(end=END + 9 * DAY))
    await program.service.admin.execute("update epoch set deadlines_held_since = $1", END - DAY)
    program.service.clock.move(END + DAY)
    recorded = await program.get("agencies/DOE/authorizations")
    (known,) = recorded.json()["items"]
    revoked = await program.post("DOE", f"authorizations/{known['authorization_id']}/revocation", {"reason": "misused"})
    assert (revoked.status_code, await program.state("DOE")) == (200, "suspended"), revoked.text
    assert await program.state("NASA") == "active"

    reply = await program.service.client.post("/v1/deadlines/release", json={"reason": "nothing was lost"})
    assert reply.status_code == 200, reply.text
    await program.move(END + 2 * DAY)
    assert (await program.facts("NASA"))[-1] == ("AgencySuspended", END)


async def test_a_parked_end_of_an_authorization_still_suspends_after_the_release(program: Program) -> None:
    """A retry while deadlines are held is refused: it would suspend nobody, and use up the deadline."""
    await program.activate("NASA", authorization(end=END))
    service = program.service
    (parked,) = await service.admin.fetch(
        """
        update deadline set parked_at = due_at, reason = 'broken' where subject like '%/ends'
        returning kind, agency_id, subject
        """
    )
    named = {**parked, "due_at": END.isoformat()}
    await service.admin.execute("update epoch set deadlines_held_since = $1", END - DAY)
    service.clock.move(END + DAY)
    refused = await service.client.post("/v1/parked-deadlines/retry", json=named)
    assert (refused.status_code, await program.state("NASA")) == (409, "active"), refused.text

    for path, body in (("deadlines/release", {"reason": "nothing was lost"}), ("parked-deadlines/retry", named)):
        reply = await service.client.post(f"/v1/{path}", json=body)
        assert reply.status_code == 200, reply.text
    assert await program.state("NASA") == "suspended"
    assert (await program.facts("NASA"))[-2:] == [("AtuLapsed", END), ("AgencySuspended", END)]


async def test_after_a_failover_no_command_announces_a_lapse_before_the_relay_has_compared(program: Program) -> None:
    await program.activate("NASA", authorization(end=END))
    await fail_over(program.service.admin)
    program.service.clock.move(END + DAY)
    reply = await program.post("NASA", "authorizations", authorization(END + 30 * DAY, END + 60 * DAY))
    assert (reply.status_code, await program.state("NASA")) == (201, "active"), reply.text
    await finish_comparison(program.service.admin)
    await program.move(END + 2 * DAY)
    assert (await program.facts("NASA"))[-1] == ("AgencySuspended", END)


async def test_a_completed_term_without_a_renewal_ends_the_enrollment(program: Program) -> None:
    year_end = START + 365 * DAY
    agencies = ("NASA", "DOE", "NSF", "SBA")
    for agency in agencies:
        await program.activate(agency, authorization(end=year_end + 90 * DAY))
    await program.withdraw("SBA")
    await program.move(year_end)

    def ended(agency: str, reason: TermEndReason, renewed: bool) -> TermEnded:
        return TermEnded(agency_id=agency, term_id=f"term_{agency}", reason=reason, renewed=renewed, ended_at=year_end)

    events = [
        ended("NASA", TermEndReason.COMPLETED, renewed=False),
        ended("DOE", TermEndReason.COMPLETED, renewed=True),
        ended("NSF", TermEndReason.WITHDRAWN, renewed=False),
        ended("SBA", TermEndReason.COMPLETED, renewed=False),
    ]
    envelopes = await program.service.publish(*events)
    for envelope, event in zip(envelopes, events, strict=True):
        await program.service.producer.put(envelope, event)

    async def states() -> list[str]:
        return [await program.state(agency) for agency in agencies]

    async def all_applied() -> bool:
        applied = "select count(*) from applied where topic = $1"
        return bool(await program.service.admin.fetchval(applied, TermEnded.topic) == len(agencies))

    await eventually(all_applied)
    assert await states() == ["ended", "active", "active", "withdrawn"]
    again = await program.post("NASA", "enrollments", enrollment(starts_at=year_end.isoformat()))
    assert (again.json()["state"], again.json()["number"]) == ("active", 2)
    await program.service.producer.put(envelopes[0], events[0])
    (stale,) = await program.service.publish(events[0])
    await eventually(
        lambda: program.service.admin.fetchval(
            "select last_sequence = $1 from applied where topic = $2 and agency_id = 'NASA'",
            stale.sequence,
            TermEnded.topic,
        )
    )
    assert await program.state("NASA") == "active"


async def test_what_the_end_of_a_term_finds_overdue_is_published_with_its_cause(run_service: ServiceRunner) -> None:
    service = await run_service(build, EnrollmentSettings, roles=ALL_ROLES - {Role.SCHEDULER})
    program, year_end = Program(service), START + 365 * DAY
    service.clock.move(START)
    await program.import_register(REGISTER)
    await program.activate("NASA", authorization(end=END))
    service.clock.move(year_end)
    ended = TermEnded(
        agency_id="NASA", term_id="term_1", reason=TermEndReason.COMPLETED, renewed=False, ended_at=year_end
    )
    (cause,) = await service.publish(ended)

    async def suspended() -> list[str] | None:
        return [each.envelope.correlation_id for each in await service.published(AgencySuspended)]

    assert await eventually(suspended) == [cause.correlation_id]

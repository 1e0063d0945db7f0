"""Deadlines: handled once, at their instant; one that fails delays no other."""

from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from muster_contracts.entitlements import SeatRevoked
from muster_runtime.scheduling.deadlines import Deadline, cancel, schedule, take
from muster_runtime.scheduling.proposals import PROPOSAL_EXPIRED
from muster_runtime.scheduling.scheduler import Scheduler
from muster_runtime.settings import Settings
from tests.integration.runtime.core.probe.service import build
from tests.integration.runtime.core.test_held_locks import busy
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner

START = datetime(2025, 8, 6, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)


async def set_deadlines(probe: RunningService, *deadlines: Deadline) -> None:
    async with probe.runtime.database.write(*{d.agency_id for d in deadlines}, context=CONTEXT) as uow:
        schedule(uow, deadlines)


def note_looks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the facts were in doubt, at each of the schedulers' looks from now on."""
    looks: list[bool] = []

    async def are_facts_in_doubt(scheduler: Scheduler) -> bool:
        looks.append(await decided(scheduler))
        return looks[-1]

    decided = Scheduler._are_facts_in_doubt
    monkeypatch.setattr(Scheduler, "_are_facts_in_doubt", are_facts_in_doubt)
    return looks


async def revoked(probe: RunningService) -> list[tuple[str, str, datetime]]:
    return [
        (event.envelope.agency_id, event.data.seat_id, event.envelope.time)
        for event in await probe.published(SeatRevoked)
    ]


async def test_a_deadline_is_handled_at_its_instant_and_not_before(probe: RunningService) -> None:
    probe.clock.move(START)
    due = START + timedelta(days=60)
    await set_deadlines(probe, Deadline("revoke", "NASA", "seat_1", due))
    probe.clock.move(due - MOMENT)
    # A deadline of another agency that is due now shows that the scheduler has looked.
    await set_deadlines(probe, Deadline("revoke", "DOE", "marker", START))
    await eventually(lambda: _is(revoked(probe), [("DOE", "marker", START)]))
    probe.clock.move(due)
    await eventually(lambda: _is(revoked(probe), [("DOE", "marker", START), ("NASA", "seat_1", due)]))
    assert await probe.admin.fetchval("select count(*) from deadline") == 0


async def test_what_was_moved_or_is_not_due_anymore_after_the_clock_was_set_back_waits_for_its_instant(
    idle_probe: RunningService,
) -> None:
    idle_probe.clock.move(START)
    instants = {"due": START, "not due anymore": START + MOMENT, "moved": START}
    await set_deadlines(idle_probe, *(Deadline("revoke", "NASA", *each) for each in instants.items()))
    found = [Deadline("revoke", "NASA", *each) for each in (instants | {"moved": START - MOMENT}).items()]
    async with idle_probe.runtime.database.write("NASA", context=CONTEXT) as uow:
        assert await take(uow, found) == found[:1]
    left = await idle_probe.admin.fetch("select subject from deadline order by subject")
    assert [row["subject"] for row in left] == ["moved", "not due anymore"]


async def test_kinds_that_are_due_at_the_same_instant_are_handled_in_the_services_order(probe: RunningService) -> None:
    probe.clock.move(START)
    await set_deadlines(probe, Deadline("erase", "NASA", "a", START), Deadline("revoke", "NASA", "b", START))
    await eventually(lambda: _is(revoked(probe), [("NASA", "b", START), ("NASA", "a", START)]))


async def test_several_missed_instants_are_handled_in_their_order(probe: RunningService) -> None:
    probe.clock.move(START)
    days = [3, 1, 2]
    await set_deadlines(probe, *(Deadline("revoke", "NASA", f"day {day}", START + timedelta(days=day)) for day in days))
    probe.clock.move(START + timedelta(days=30))
    expected = [("NASA", f"day {day}", START + timedelta(days=day)) for day in (1, 2, 3)]
    await eventually(lambda: _is(revoked(probe), expected))


async def test_a_moved_deadline_is_due_once_and_a_cancelled_one_never(probe: RunningService) -> None:
    probe.clock.move(START)
    due, later = START + timedelta(days=1), START + timedelta(days=2)
    await set_deadlines(probe, Deadline("revoke", "NASA", "moved", due), Deadline("revoke", "NASA", "gone", due))
    await set_deadlines(probe, Deadline("revoke", "NASA", "moved", later))
    async with probe.runtime.database.write("NASA", context=CONTEXT) as uow:
        cancel(uow, "NASA", "revoke", ["gone", "never there"])
    probe.clock.move(later)
    await eventually(lambda: _is(revoked(probe), [("NASA", "moved", later)]))


async def test_a_deadline_that_fails_parks_alone(probe: RunningService) -> None:
    """Neither the agency's deadlines of the same instant nor its later ones wait for it."""
    probe.clock.move(START)
    later = START + timedelta(hours=1)
    await set_deadlines(
        probe,
        *(Deadline("revoke", "DOE", subject, START) for subject in ("a", "broken", "c")),
        Deadline("forgotten", "DOE", "of no handler", START),
        Deadline("revoke", "DOE", "later", later),
        Deadline("revoke", "NASA", "seat_1", START),
    )
    probe.clock.move(later)
    expected = {("DOE", "a"), ("DOE", "c"), ("DOE", "later"), ("NASA", "seat_1")}
    await eventually(lambda: _are(revoked(probe), expected))
    await eventually(lambda: _is(parked(probe), ["broken", "of no handler"]))
    assert [subject for agency, subject, _ in await revoked(probe) if agency == "DOE"] == ["a", "c", "later"]
    assert await probe.admin.fetchval("select count(*) from deadline") == 2
    await probe.client.get("/health/ready")
    assert REGISTRY.get_sample_value("muster_parked_deadlines", {"service": "probe"}) == 2
    assert REGISTRY.get_sample_value("muster_deadline_overdue_seconds", {"service": "probe"}) == 0


async def test_a_parked_deadline_is_retried_or_given_up(probe: RunningService) -> None:
    probe.clock.move(START)
    await set_deadlines(probe, *(Deadline("revoke", agency, "broken", START) for agency in ("DOE", "EPA")))
    await eventually(lambda: _is(parked(probe), ["broken", "broken"]))
    doe, epa = (await probe.client.get("/v1/parked-deadlines")).json()["items"]
    assert "this deadline cannot be handled" in doe["reason"]
    named, other = ({name: item[name] for name in ("kind", "agency_id", "subject", "due_at")} for item in (doe, epa))

    probe.clock.move(START + MOMENT)
    refused = await probe.client.post("/v1/parked-deadlines/retry", json=named)
    first = (await probe.client.get("/v1/parked-deadlines?limit=1")).json()
    rest = (await probe.client.get(f"/v1/parked-deadlines?limit=1&after={first['next']}")).json()
    assert (first["items"], rest["items"]) == ([doe], [epa])  # it was parked at the first failure
    assert refused.json() == {"parked": True, "reason": "Conflict: this deadline cannot be handled"}
    await probe.admin.execute("update deadline set subject = 'mended' where agency_id = 'DOE'")
    mended = named | {"subject": "mended"}
    once = {"Idempotency-Key": "retry-1"}
    for replayed in (None, "true"):
        retried = await probe.client.post("/v1/parked-deadlines/retry", json=mended, headers=once)
        assert retried.json() == {"parked": False, "reason": None}
        assert retried.headers.get("idempotency-replayed") == replayed
    mismatch = await probe.client.post("/v1/parked-deadlines/retry", json=named, headers=once)
    assert mismatch.status_code == 422
    await eventually(lambda: _is(revoked(probe), [("DOE", "mended", START)]))
    assert (await probe.client.post("/v1/parked-deadlines/retry", json=mended)).status_code == 404

    discard = other | {"reason": "put right by hand"}
    key = {"Idempotency-Key": "discard-1"}
    for _ in range(2):
        reply = await probe.client.post("/v1/parked-deadlines/discard", json=discard, headers=key)
        assert reply.status_code == 204
    assert (await probe.client.post("/v1/parked-deadlines/discard", json=discard)).status_code == 404
    assert (await probe.client.post("/v1/parked-deadlines/discard", json=other)).status_code == 422
    audited = await probe.admin.fetch("select command, agency_id, subject, reason from audit order by id")
    assert [tuple(row) for row in audited] == [
        ("RetryParkedDeadline", "DOE", "revoke/mended", None),
        ("DiscardParkedDeadline", "EPA", "revoke/broken", "put right by hand"),
    ]
    token = probe.token("probe:operate", agency="DOE")
    hidden = await probe.client.get("/v1/parked-deadlines", headers={"Authorization": f"Bearer {token}"})
    assert hidden.status_code == 403


async def test_the_expiry_of_a_proposal_is_not_given_up(idle_probe: RunningService) -> None:
    named = {"kind": PROPOSAL_EXPIRED, "agency_id": "DOE", "subject": "prp_1", "due_at": START.isoformat()}
    await idle_probe.admin.execute(
        """
        insert into deadline (kind, agency_id, subject, due_at, parked_at, reason)
        values ($1, 'DOE', 'prp_1', $2, $2, 'a defect')
        """,
        PROPOSAL_EXPIRED,
        START,
    )
    refused = await idle_probe.client.post("/v1/parked-deadlines/discard", json=named | {"reason": "it is in the way"})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:muster:problem:deadline-required")


async def test_a_parked_deadline_that_must_take_effect_is_not_given_up(probe: RunningService) -> None:
    probe.clock.move(START)
    await set_deadlines(probe, Deadline("erase", "DOE", "broken", START))
    await eventually(lambda: _is(parked(probe), ["broken"]))
    named = {"kind": "erase", "agency_id": "DOE", "subject": "broken", "due_at": START.isoformat()}
    refused = await probe.client.post("/v1/parked-deadlines/discard", json=named | {"reason": "it is in the way"})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:muster:problem:deadline-required")
    assert "retry it" in refused.json()["detail"]
    assert await parked(probe) == ["broken"]
    await probe.admin.execute("update deadline set subject = 'mended'")
    retried = await probe.client.post("/v1/parked-deadlines/retry", json=named | {"subject": "mended"})
    assert retried.json() == {"parked": False, "reason": None}


async def test_a_parked_deadline_that_is_scheduled_again_is_due_again(probe: RunningService) -> None:
    probe.clock.move(START)
    await set_deadlines(probe, Deadline("forgotten", "DOE", "seat", START))
    await eventually(lambda: _is(parked(probe), ["seat"]))
    later = START + timedelta(days=1)
    await set_deadlines(probe, Deadline("forgotten", "DOE", "seat", later))
    assert await parked(probe) == []
    probe.clock.move(later)
    await eventually(lambda: _is(parked(probe), ["seat"]))


async def test_the_breaker_lets_no_more_deadlines_park_and_all_others_go_on(run_service: ServiceRunner) -> None:
    probe = await run_service(build, Settings, parked_streams=1)
    probe.clock.move(START)
    await set_deadlines(probe, *(Deadline("revoke", agency, "broken", START) for agency in ("DOE", "EPA")))
    await set_deadlines(probe, Deadline("revoke", "NASA", "seat_1", START))
    await eventually(lambda: _is(revoked(probe), [("NASA", "seat_1", START)]))
    await eventually(lambda: _is(parked(probe), ["broken"]))
    assert await probe.admin.fetchval("select count(*) from deadline") == 2


async def parked(probe: RunningService) -> list[str]:
    rows = await probe.admin.fetch("select subject from deadline where parked_at is not null order by subject")
    return [row["subject"] for row in rows]


async def _are(answer: Awaitable[list[tuple[str, str, datetime]]], expected: set[tuple[str, str]]) -> bool:
    assert {(agency, subject) for agency, subject, _ in await answer} == expected
    return True


HELD = [f"AG{number:02}" for number in range(12)]


async def test_agencies_whose_locks_are_held_elsewhere_keep_no_other_waiting(probe: RunningService) -> None:
    """NASA comes after all of them. A worker's wait for each lock, 2 s, would take longer than this test waits."""
    probe.clock.move(START)
    due = START + timedelta(hours=1)
    await set_deadlines(probe, *(Deadline("revoke", agency, "seat", due) for agency in [*HELD, "NASA"]))
    async with probe.admin.transaction():
        await probe.admin.execute("select lock_agencies($1)", HELD)
        probe.clock.move(due)
        await eventually(lambda: _is(revoked(probe), [("NASA", "seat", due)]))
    await eventually(lambda: _is(_agencies(probe), [*HELD, "NASA"]))


async def test_a_busy_agency_has_its_turn_though_others_locks_are_held_for_long(probe: RunningService) -> None:
    probe.clock.move(START)
    due = START + timedelta(hours=1)
    await set_deadlines(probe, *(Deadline("revoke", agency, "seat", due) for agency in ("DOE", "EPA", "NASA")))
    async with busy(probe, "NASA"), probe.admin.transaction():
        await probe.admin.execute("select lock_agencies('{DOE,EPA}')")
        probe.clock.move(due)
        await eventually(lambda: _is(revoked(probe), [("NASA", "seat", due)]))


async def test_two_schedulers_handle_a_deadline_once(probe: RunningService, run_service: ServiceRunner) -> None:
    second = await run_service(build, Settings, beside=probe)
    for each in (probe, second):
        each.clock.move(START)
    due = START + timedelta(hours=1)
    agencies = [f"AG{number}" for number in range(30)]
    await set_deadlines(probe, *(Deadline("revoke", agency, "seat", due) for agency in agencies))
    for each in (probe, second):
        each.clock.move(due)
    await eventually(lambda: _is(_agencies(probe), sorted(agencies)))


async def _agencies(probe: RunningService) -> list[str]:
    return sorted(agency for agency, _, _ in await revoked(probe))


async def _is(answer: Awaitable[Any], expected: Any) -> bool:
    assert await answer == expected
    return True

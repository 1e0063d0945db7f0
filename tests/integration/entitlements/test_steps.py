"""Changes to all of an agency's seats go step by step: here, when an enrollment is over."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from muster_contracts.entitlements import PersonErased, PersonRecorded, SeatAssigned, SeatRevoked, SeatTransferred
from muster_entitlements.bootstrap import build
from muster_entitlements.handlers import closings
from muster_entitlements.settings import EntitlementsSettings
from muster_runtime.process.roles import Role
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.lives import published
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner

SEATS, STEP = 2_500, 200


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closings, "STEP_SEATS", STEP)


def file_of(*numbers: int) -> str:
    return "\n".join(["email", *(f"person.{number}@nasa.gov" for number in numbers)])


async def in_state(entitlements: Entitlements, **expected: object) -> None:
    async def reached() -> bool:
        pool = await entitlements.pool()
        return all(pool[name] == value for name, value in expected.items())

    await eventually(reached, timeout=60)


@pytest.mark.parametrize("way", ["withdrawn", "term_ended", "taken_over"])
async def test_every_seat_is_revoked_and_no_transaction_grows_with_their_number(
    front: Entitlements, run_service: ServiceRunner, way: str
) -> None:
    await front.enroll(cap=SEATS)
    await front.assign_seats(SEATS)
    await front.service.admin.execute("delete from outbox")
    match way:
        case "withdrawn":
            await front.service.publish(front.withdrawn())
            await in_state(front, state="withdrawn")
        case "term_ended":
            await front.service.publish(front.term(), front.term_ended())
            await in_state(front, state="ended")
        case _:
            await front.enroll(cap=10, enrollment_id="enr_2")
    pool = await front.pool()
    assert (pool["in_use"], pool["revoking"]) == (0, SEATS)
    assert await front.service.admin.fetchval("select count(*) from seat where state = 'revoked'") == 0
    assert (await front.get("seats", limit="1")).json()["items"][0]["state"] == "revoked"
    assert (await front.check(0))["verdict"] == "refused"

    # Postgres keeps which transaction has written a row; the relay does not run, so every event is in the outbox.
    await run_service(build, EntitlementsSettings, roles=frozenset({Role.SCHEDULER}), beside=front.service)
    await in_state(front, revoking=0)
    admin = front.service.admin
    seats = await admin.fetch("select count(*) from seat group by xmin::text")
    events = await admin.fetch("select sum(events) from outbox group by xmin::text")
    assert sum(row[0] for row in seats) == SEATS
    assert max(row[0] for row in seats) <= STEP
    assert max(row[0] for row in events) <= 3 * STEP + 4  # and the events of the enrollment that takes over
    assert await admin.fetchval("select count(*) from seat where state <> 'revoked' or email is not null") == 0
    assert await admin.fetchval("select count(*) from closing") == 0
    assert await admin.fetchval("select count(*) from deadline where kind = 'seats-closed'") == 0

    await run_service(build, EntitlementsSettings, roles=frozenset({Role.RELAY}), beside=front.service)
    revoked = await published(front, SeatRevoked, SEATS, timeout=60)
    assert {event.data.reason for event in revoked} == {"agency_withdrawn" if way == "withdrawn" else "term_ended"}
    sequences = [event.envelope.sequence for event in revoked]
    assert sequences == list(range(sequences[0], sequences[0] + SEATS))
    assert len({event.data.seat_id for event in revoked}) == SEATS
    [cause] = {event.envelope.causation_id for event in revoked}
    assert cause is not None
    assert len({event.envelope.correlation_id for event in revoked}) == 1
    erased = await published(front, PersonErased, SEATS, timeout=60)
    assert {event.data.subject_ref for event in erased} == {event.data.subject_ref for event in revoked}
    audited = await admin.fetch("select subject, reason, after from audit where command = 'RevokeAllSeats'")
    assert [(row["subject"], row["after"]) for row in audited] == [("enr_1", f'{{"seats": {SEATS}}}')]


async def test_seats_that_are_still_being_revoked_do_not_count_toward_a_later_cap(
    front: Entitlements, run_service: ServiceRunner
) -> None:
    await front.enroll(cap=1_000)
    worker = await run_service(
        build, EntitlementsSettings, roles=frozenset({Role.SCHEDULER, Role.WORKER}), beside=front.service
    )
    await front.import_file(file_of(*range(1_000)), directory=True)
    [old] = (await front.get("seats", limit="1")).json()["items"]
    await front.service.admin.execute(
        """
        create function hold_back() returns trigger language plpgsql as $$
        begin
            return null;
        end $$
        """
    )
    # The steps are held back until the later enrollment has assigned its seats.
    await front.service.admin.execute(
        """
        create trigger hold_back before insert on deadline
        for each row when (new.kind = 'seats-closed') execute function hold_back()
        """
    )
    await front.service.publish(front.withdrawn())
    await in_state(front, state="withdrawn", in_use=0, revoking=1_000)
    await front.enroll(cap=600, enrollment_id="enr_2")
    pool = await front.pool()
    assert (pool["state"], pool["cap"], pool["in_use"], pool["revoking"]) == ("open", 600, 0, 1_000)

    # A seat of the earlier enrollment is as good as revoked, whatever is asked of it.
    seat = f"seats/{old['seat_id']}"
    assert (await front.get(seat)).json()["state"] == "revoked"
    assert (await front.get(seat)).json()["email"] is None
    assert (await front.post(f"{seat}/activation")).json()["type"].endswith("seat-revoked")
    assert (await front.post(f"{seat}/revocation")).json()["state"] == "revoked"
    assert (await front.check(0))["reason"] == "no_seat"
    explained = await front.get("checks/explanation", subject="person.0@nasa.gov", feature="deep-research")
    assert explained.json()["seat"] is None

    # People who held one are given another, in every way in which a seat is assigned.
    body = file_of(*range(598), *range(2_000, 2_001))
    dry = await front.import_file(body, dry_run=True)
    assert (dry["assigned"], dry["refused"]) == (599, 0)
    assert (await front.import_file(body, directory=True))["assigned"] == 599
    assert (await front.assign(700)).status_code == 201
    assert (await front.assign(701)).status_code == 409
    pool = await front.pool()
    assert (pool["in_use"], pool["revoking"]) == (600, 1_000 - 599)
    newcomer = (await front.import_file("email\nperson.2000@nasa.gov", "seat-suspensions"))["changed"]
    assert newcomer == 1
    transfers = await front.import_file("from,to\nperson.1@nasa.gov,person.800@nasa.gov\n", "seat-transfers")
    assert transfers["changed"] == 1
    seat_id = await front.service.admin.fetchval("select seat_id from seat where email = 'person.2@nasa.gov'")
    moved = await front.post(f"seats/{seat_id}/transfer", {"email": "person.801@nasa.gov"})
    assert moved.status_code == 200, moved.text

    await front.service.admin.execute("drop trigger hold_back on deadline")
    await front.service.admin.execute("insert into deadline values ('seats-closed', 'NASA', 'NASA', $1)", START)
    worker.runtime.wakeup.wake()
    await in_state(front, in_use=600, revoking=0)
    await run_service(build, EntitlementsSettings, roles=frozenset({Role.RELAY}), beside=front.service)
    await published(front, SeatRevoked, 1_000, timeout=60)
    await _nobody_holds_two_seats(front, 600)
    await _the_directory_knows_those_who_hold_one(front)


async def _nobody_holds_two_seats(entitlements: Entitlements, held: int) -> None:
    """The stream of seats, replayed: one seat per person at any time."""
    events: list[Any] = []
    for cls in (SeatAssigned, SeatRevoked, SeatTransferred):
        events += await entitlements.service.published(cls)
    holders: dict[str, str] = {}
    for event in sorted(events, key=lambda event: event.envelope.sequence):
        match event.data:
            case SeatAssigned(subject_ref=subject, seat_id=seat_id):
                assert subject not in holders
                holders[subject] = seat_id
            case SeatRevoked(subject_ref=subject, seat_id=seat_id):
                assert holders.pop(subject) == seat_id
            case SeatTransferred(subject_ref=subject, from_subject_ref=earlier, seat_id=seat_id):
                assert subject not in holders
                assert holders.pop(earlier) == seat_id
                holders[subject] = seat_id
    assert len(holders) == held
    rows = await entitlements.service.admin.fetch("select subject_ref, seat_id from seat where state <> 'revoked'")
    assert {row["subject_ref"]: row["seat_id"] for row in rows} == holders


async def _the_directory_knows_those_who_hold_one(entitlements: Entitlements) -> None:
    events: list[Any] = [
        *await entitlements.service.published(PersonRecorded),
        *await entitlements.service.published(PersonErased),
    ]
    last = {event.data.subject_ref: event for event in sorted(events, key=lambda event: event.envelope.sequence)}
    known = {subject for subject, event in last.items() if isinstance(event.data, PersonRecorded)}
    rows = await entitlements.service.admin.fetch("select subject_ref from seat where state <> 'revoked'")
    assert known == {row["subject_ref"] for row in rows}


async def test_a_second_withdrawal_follows_one_that_is_still_under_way(
    front: Entitlements, run_service: ServiceRunner
) -> None:
    for enrollment_id in ("enr_1", "enr_2", "enr_3"):
        await front.enroll(cap=5, enrollment_id=enrollment_id)
        for person in range(5):
            assert (await front.assign(person)).status_code == 201
        front.service.clock.move(front.service.clock.now() + timedelta(days=1))
        await front.service.publish(front.withdrawn(enrollment_id))
        await in_state(front, state="withdrawn", enrollment_id=enrollment_id)
    assert (await front.pool())["revoking"] == 5  # a person who was given a seat gave the earlier one back
    worker = await run_service(
        build, EntitlementsSettings, roles=frozenset({Role.SCHEDULER, Role.RELAY}), beside=front.service
    )
    worker.clock.move(front.service.clock.now())
    await in_state(front, revoking=0, in_use=0)
    revoked = await published(front, SeatRevoked, 15)
    assert Counter(event.data.subject_ref for event in revoked).most_common(1)[0][1] == 3
    audited = await front.service.admin.fetch("select subject from audit where command = 'RevokeAllSeats' order by id")
    assert [row["subject"] for row in audited] == ["enr_1", "enr_2", "enr_3"]


async def test_other_agencies_proceed_between_two_steps(front: Entitlements, run_service: ServiceRunner) -> None:
    """A deadline of another agency that is due while seats are being revoked waits for one step and not for all."""
    other = Entitlements(front.service, "GSA")
    await front.enroll(cap=SEATS)
    await front.assign_seats(SEATS)
    await other.enroll(cap=1)
    reply = await other.post("seats", {"email": "ada@gsa.gov", "state": "invited"})
    assert reply.status_code == 201
    await front.service.admin.execute("update deadline set due_at = $1 where kind = 'invitation-expired'", START)
    await front.service.admin.execute("update seat set invited_until = $1 where state = 'invited'", START)
    await front.service.publish(front.withdrawn())
    await in_state(front, state="withdrawn")
    await run_service(build, EntitlementsSettings, roles=frozenset({Role.SCHEDULER}), beside=front.service)
    await in_state(front, revoking=0)
    order = await front.service.admin.fetch("select agency_id from outbox order by id")
    agencies = [row["agency_id"] for row in order]
    last = len(agencies) - 1 - agencies[::-1].index("GSA")
    assert last < len(agencies) - SEATS // STEP

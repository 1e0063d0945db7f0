"""The topic of current access: it holds what the tables hold, and a client of it answers as the service does."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import repeat
from typing import Any

import pytest

from muster_contracts.enrollment import AgencyReinstated, AgencySuspended
from muster_contracts.entitlements import AgencyAccess, SubjectAccess, SubjectAccessErased
from muster_entitlements.handlers.snapshots import publish_subjects
from muster_entitlements.workers import snapshots
from muster_entitlements_client import EntitlementsClient
from muster_runtime.operations.rebuild import opened
from muster_runtime.projection import Difference
from tests.integration.entitlements.conftest import END, NEXT_END, START, Entitlements
from tests.integration.entitlements.lives import DAY, keep
from tests.integration.entitlements.test_catalog import FRONTIER, RESEARCH, publish
from tests.integration.entitlements.test_seat_trials import CANVAS
from tests.support.eventually import eventually

FEATURES = [None, "deep-research", "frontier-models", "canvas", "sketches"]

# A trial with a grace, and then a quota of the whole agency.
SKETCHES = {
    "key": "sketches",
    "name": "Sketches",
    "mode": "unlimited",
    "trial_days": 10,
    "grace_days": 10,
    "mode_after": "quota",
    "quota": {"limit": 10, "per": "agency"},
}

# A check's use is counted up to now; a copy's is as of the last threshold.
COUNTED = {"used", "remaining", "resets_at"}

STRAY = "sub_" + "5" * 32


async def compare(entitlements: Entitlements) -> Sequence[Difference]:
    async with opened(entitlements.service.runtime.service, "snapshot") as projection:
        await projection.replay()
        return await projection.compare()


async def swap(entitlements: Entitlements) -> Sequence[Difference]:
    async with opened(entitlements.service.runtime.service, "snapshot") as projection:
        await projection.replay()
        return await projection.swap("ticket 4712")


@asynccontextmanager
async def following(entitlements: Entitlements, **options: Any) -> AsyncIterator[EntitlementsClient]:
    """A client with a complete copy, on the service's clock."""
    settings = entitlements.service.runtime.settings
    async with EntitlementsClient(
        {"bootstrap_servers": settings.kafka_bootstrap},
        topic_prefix=settings.topic_prefix,
        now=entitlements.service.clock.now,
        **options,
    ) as client:
        await client.ready()
        yield client


async def agrees(entitlements: Entitlements, client: EntitlementsClient, subjects: Sequence[str]) -> bool:
    """Whether the client answers every check as the service does, except for how it counts revisions."""
    pairs = [(subject, feature) for subject in subjects for feature in FEATURES]
    body = {"pairs": [{"subject": subject, "feature": feature} for subject, feature in pairs]}
    told = (await entitlements.post("checks", body)).json()["answers"]
    for (subject, feature), expected in zip(pairs, told, strict=True):
        answer = client.check(subject, feature, agency_id=entitlements.agency)
        until = answer.valid_until and answer.valid_until.isoformat().replace("+00:00", "Z")
        assert answer.revision <= expected["revision"]
        found = {**answer._asdict(), "valid_until": until, "revision": expected["revision"]}
        if any(found[name] != expected[name] for name in found.keys() & expected.keys() - COUNTED):
            return False
    return True


async def test_a_client_agrees_with_the_service_through_a_whole_life(entitlements: Entitlements) -> None:
    service = entitlements.service
    service.clock.move(START - 30 * DAY)
    await publish(entitlements, [FRONTIER, RESEARCH | {"trial_days": 60}, CANVAS, SKETCHES], "new-agencies")
    await entitlements.enroll(cap=20)
    subjects = ["sub_" + "0" * 32]

    async def settled() -> bool:
        quiet = await service.admin.fetchval(
            "select not exists (select from outbox) and not exists (select from closing)"
        )
        return bool(quiet) and await agrees(entitlements, client, subjects)

    async def act(path: str, body: Any = None) -> None:
        reply = await entitlements.post(path, body or {})
        assert reply.status_code in {200, 201}, reply.text

    async with following(entitlements) as client:
        seats = [await keep(entitlements, f"of.{state}", state) for state in ("reserved", "invited", "assigned")]
        await entitlements.import_file("email\nrow.1@nasa.gov\nrow.2@nasa.gov\nrow.3@nasa.gov\nrow.4@nasa.gov\n")
        rows = await service.admin.fetch("select subject_ref from seat")
        subjects += [row["subject_ref"] for row in rows]
        await eventually(settled)
        service.clock.move(START)
        assert await agrees(entitlements, client, subjects)
        await act(f"{seats[0]}/invitation")
        await act(f"{seats[2]}/activation")
        await act("usage", {"subject": "row.1@nasa.gov", "feature": "deep-research"})
        await act(f"{seats[2]}/suspension")
        await entitlements.import_file("email\nrow.2@nasa.gov\n", "seat-suspensions")
        await entitlements.import_file("from,to\nrow.3@nasa.gov,other@nasa.gov\n", "seat-transfers")
        await entitlements.import_file("email\nrow.4@nasa.gov\n", "seat-revocations")
        await eventually(settled)
        rows = await service.admin.fetch("select subject_ref from seat")
        subjects = [subjects[0], *{row["subject_ref"] for row in rows}]
        for suspended, event in (
            (True, AgencySuspended(agency_id="NASA", enrollment_id="enr_1", reason="atu_lapsed", suspended_at=START)),
            (False, AgencyReinstated(agency_id="NASA", enrollment_id="enr_1", reinstated_at=START)),
        ):
            await service.publish(event)
            await eventually(partial(service.admin.fetchval, "select suspended = $1 from pool", suspended))
            await eventually(settled)
        await act(f"{seats[2]}/reinstatement")
        await act(f"{seats[2]}/transfer", {"email": "third@nasa.gov"})
        await act(f"{seats[0]}/revocation")
        await act("pool/resize", {"cap": 30})
        to_agency = {"feature": "deep-research", "reason": "pilot", "ends_at": (START + 70 * DAY).isoformat()}
        await act("grants", to_agency)
        await act("grants", {"feature": "frontier-models", "subject": "row.2@nasa.gov", "reason": "pilot"})
        await act("grants", {"feature": "deep-research", "subject": "later@nasa.gov", "reason": "pilot"})
        await entitlements.import_file("email\nlater@nasa.gov\n")
        rows = await service.admin.fetch("select subject_ref from seat")
        subjects = [subjects[0], *{row["subject_ref"] for row in rows}]
        await eventually(settled)
        ended = {}
        for days in (15, 20, 30, 60):  # the grace's end, that of a seat's trial, and the window's
            for instant in (START + days * DAY - timedelta.resolution, START + days * DAY):
                service.clock.move(instant)
                await eventually(settled)
            ended[days] = {client.check(subject, "canvas").reason for subject in subjects}
        assert "window_closed" not in ended[20]
        assert {"window_closed", "window_open"} <= ended[30]
        assert {answer.reason for answer in map(client.check, subjects, repeat("deep-research"))} >= {"granted"}
        grants = (await entitlements.get("grants")).json()["items"]
        await act(f"grants/{grants[-1]['grant_id']}/revocation", {"reason": "over"})
        await eventually(settled)
        service.clock.move(START + 71 * DAY)
        await eventually(settled)
        person = next(each for each in subjects if client.check(each, "deep-research").reason == "quota")

        async def is_known(feature: str, known: tuple[int, int] | None) -> bool:
            answer = client.check(person, feature)
            assert (answer.used and (answer.limit, answer.used)) == known
            return True

        for feature, amount, known in (
            ("deep-research", 24, None),
            ("deep-research", 1, (50, 25)),  # half of the person's quota
            ("deep-research", 14, (50, 25)),
            ("deep-research", 1, (50, 40)),
            ("deep-research", 10, (50, 50)),
            ("sketches", 6, (10, 6)),  # of the agency's
            ("sketches", 4, (10, 10)),
        ):
            await act("usage/consume", {"subject": person, "feature": feature, "amount": amount})
            await eventually(settled)
            await eventually(partial(is_known, feature, known))
        assert client.check(person, "sketches").resets_at == datetime(2025, 11, 1, tzinfo=UTC)
        assert {client.check(each, "sketches").used for each in subjects} == {None, 10}

        def used_up(feature: str) -> int:
            return [client.check(each, feature).reason for each in subjects].count("quota_used_up")

        of_one, of_all = used_up("deep-research"), used_up("sketches")
        assert of_one == 1 < of_all
        for to, feature in (({"subject": person}, "deep-research"), ({}, "sketches")):
            await act("quota-grants", {**to, "feature": feature, "amount": 2, "reason": "a deadline"})
            await eventually(settled)
            assert used_up(feature) == 0
            await act("usage/consume", {"subject": person, "feature": feature, "amount": 2})
            await eventually(settled)
            assert used_up(feature) == (of_one if to else of_all)
        await act("seats", {"email": "newcomer@nasa.gov"})
        await eventually(settled)
        assert await compare(entitlements) == []  # a grant that has ended is no difference
        service.clock.move(datetime(2025, 11, 1, tzinfo=UTC))
        await eventually(settled)
        assert {client.check(person, feature).used for feature in FEATURES} == {None}
        assert await compare(entitlements) == []  # nor is a period
        await service.publish(entitlements.term(), entitlements.renewal("accepted"))

        async def renewed() -> bool:
            return bool((await entitlements.pool())["ends_at"][:10] == NEXT_END.date().isoformat())

        await eventually(renewed)
        service.clock.move(END)
        await eventually(settled)
        await service.publish(entitlements.withdrawn(at=END))
        await eventually(lambda: service.admin.fetchval("select withdrawn_at is not null from pool"))
        await eventually(settled)
        await service.publish(entitlements.enrolled(9, "enr_2").model_copy(update={"ends_at": NEXT_END}))
        await eventually(lambda: service.admin.fetchval("select enrollment_id = 'enr_2' from pool"))
        await entitlements.import_file("email\nrow.1@nasa.gov\n")
        await eventually(settled)
        await eventually(lambda: len(client) == 1)
        assert client.staleness_seconds is not None
        assert client.staleness_seconds < 10
    assert await compare(entitlements) == []

    # A key's last state, once per transaction: a person who got a seat again has one record, and no tombstone.
    again = [each for each in await service.published(SubjectAccess) if each.data.generation == 2]
    assert len(again) == 1
    erased = await service.published(SubjectAccessErased)
    assert again[0].envelope.correlation_id not in {each.envelope.correlation_id for each in erased}


async def test_a_rebuild_publishes_what_differs_and_resumes_where_it_was_killed(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = entitlements.service
    await entitlements.enroll(cap=10)
    await entitlements.assign_seats(7)  # six of them without a record
    await keep(entitlements, "kept", "reserved")
    stray = SubjectAccess(agency_id="NASA", subject_ref=STRAY, revision=1, generation=1, seat="active")
    await service.publish(stray)
    assert await compare(entitlements) == [Difference("NASA", "records of 7 people")]
    await service.admin.execute("update pool set suspended = true")
    assert await compare(entitlements) == [Difference("NASA", "its own record and records of 7 people")]

    with monkeypatch.context() as killed:
        killed.setattr(snapshots, "STEP_SEATS", 3)

        async def die_at_the_second(uow: Any, agency_id: str, subject_refs: Sequence[str]) -> None:
            await publish_subjects(uow, agency_id, subject_refs)
            killed.setattr(snapshots, "publish_subjects", None)

        killed.setattr(snapshots, "publish_subjects", die_at_the_second)
        with pytest.raises(TypeError):
            await swap(entitlements)
    await eventually(lambda: service.admin.fetchval("select not exists (select from outbox)"))
    assert await swap(entitlements) == [Difference("NASA", "its own record and records of 4 people")]
    assert await swap(entitlements) == []
    audited = await service.admin.fetch("select after from audit where command = 'RebuildProjection' order by id")
    assert [row["after"] for row in audited] == ['{"itself": true, "people": 7}', '{"itself": true, "people": 4}']
    agency = (await service.published(AgencyAccess))[-1].data
    assert agency.suspended
    async with following(entitlements) as client:
        assert len(client) == 8
        assert client.check(STRAY).reason == "no_seat"

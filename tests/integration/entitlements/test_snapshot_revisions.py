"""The revision after a rebuild of the snapshot: whoever keeps an answer until it increases asks again."""

import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from muster_contracts.entitlements import SubjectAccess
from muster_entitlements.workers.snapshots import Snapshot, Suspects
from muster_runtime.messaging.producers import partition_of
from muster_runtime.projection import Difference
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_snapshots import compare, following, swap
from tests.support.eventually import eventually
from tests.support.services import PARTITIONS


async def test_a_correction_increases_the_revision_of_answers(entitlements: Entitlements) -> None:
    """The topic says by mistake that a seat can be used."""
    subject_ref, seat_id = await a_seat(entitlements)
    assert (await entitlements.post(f"seats/{seat_id}/suspension", {})).status_code == 200
    await put_instead(entitlements, records=2, seat="active")
    async with following(entitlements) as client:
        wrong = client.check(subject_ref)
        assert wrong.verdict == "allowed"
        assert wrong.revision == (await entitlements.pool())["revision"]
        assert await swap(entitlements) == [Difference("NASA", "the record of 1 person")]
        await eventually(lambda: client.check(subject_ref).verdict == "refused")
        assert client.check(subject_ref).revision == wrong.revision + 1
    await nothing_differs(entitlements, wrong.revision + 1)


async def test_after_a_restore_the_revision_continues_above_that_of_copies(entitlements: Entitlements) -> None:
    """The earlier records are on the topic, and the tables have a lower revision."""
    subject_ref, seat_id = await a_seat(entitlements)
    await put_instead(entitlements, records=1, revision=500)
    async with following(entitlements) as client:
        before = client.check(subject_ref)
        assert (before.verdict, before.revision) == ("allowed", 500)
        assert await swap(entitlements) == [Difference("NASA", "its own record")]
        assert (await entitlements.post(f"seats/{seat_id}/suspension", {})).status_code == 200
        await eventually(lambda: client.check(subject_ref).verdict == "refused")
        assert client.check(subject_ref).revision == 502
    await nothing_differs(entitlements, 502)


async def test_a_raised_epoch_puts_revisions_above_all_that_were_answered(entitlements: Entitlements) -> None:
    """What somebody has without a seat increases the revision, and nothing on the topic says so."""
    subject_ref, seat_id = await a_seat(entitlements)
    backup = (await entitlements.pool())["revision"]
    grant = {"feature": "deep-research", "subject": "person.2@nasa.gov", "reason": "pilot"}
    assert (await entitlements.post("grants", grant)).status_code == 201
    answered = (await entitlements.check(1))["revision"]
    assert answered == backup + 1
    await restore(entitlements, backup)

    assert (await entitlements.post(f"seats/{seat_id}/suspension", {})).status_code == 200
    checked = await entitlements.check(1)
    assert checked["verdict"] == "refused"
    assert checked["revision"] > answered
    async with following(entitlements) as client:
        assert await swap(entitlements) == [Difference("NASA", "its own record")]
        published = (await entitlements.pool())["revision"]
        await eventually(lambda: client.check(subject_ref).revision == published > checked["revision"])
    await nothing_differs(entitlements, published)

    # An agency whose enrollment was lost comes back with a revision above those answered for it.
    other = replace(entitlements, agency="NSF")
    await other.enroll(cap=1)
    assert (await other.pool())["revision"] > 1_000_000
    assert await compare(entitlements) == []


async def restore(entitlements: Entitlements, revision: int) -> None:
    """Lose the grant, and continue as after a restore."""
    await entitlements.service.admin.execute("delete from entitlement_grant")
    await entitlements.service.admin.execute("update pool set revision = $1", revision)
    raised = await entitlements.service.client.post("/v1/epoch", json={"reason": "restored from a backup"})
    assert raised.status_code == 200, raised.text


async def a_seat(entitlements: Entitlements) -> tuple[str, str]:
    """Give somebody a seat; returns their reference, and the seat's ID."""
    await entitlements.enroll(cap=10)
    reply = await entitlements.assign(1)
    assert reply.status_code == 201, reply.text
    return reply.json()["subject_ref"], reply.json()["seat_id"]


async def put_instead(entitlements: Entitlements, records: int, **changes: Any) -> None:
    """Once this many records of people are on the topic, put another in place of the last, in the same partition."""
    service = entitlements.service

    async def last() -> Any:
        published = await service.published(SubjectAccess)
        return published[-1] if len(published) == records else None

    received = await eventually(last)
    envelope = received.envelope._replace(id=f"test/{received.envelope.id}")
    changed = received.data.model_copy(update=changes)
    await service.producer.put(envelope, changed, partition=partition_of(b"NASA", PARTITIONS))


async def nothing_differs(entitlements: Entitlements, revision: int) -> None:
    """Another rebuild finds nothing, publishes nothing, and leaves the revision as it is."""
    service = entitlements.service
    await eventually(lambda: service.admin.fetchval("select not exists (select from outbox)"))
    assert await compare(entitlements) == []
    assert await swap(entitlements) == []
    assert (await entitlements.pool())["revision"] == revision
    assert await service.admin.fetchval("select not exists (select from outbox)")


async def test_what_commands_change_while_a_rebuild_compares_is_no_difference(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_seat(entitlements)
    look, looks = Snapshot._look, itertools.count(2)

    async def look_after_a_command(projection: Snapshot, agency_id: str) -> Suspects:
        assert (await entitlements.assign(next(looks))).status_code == 201
        return await look(projection, agency_id)

    monkeypatch.setattr(Snapshot, "_look", look_after_a_command)
    assert await swap(entitlements) == []


async def test_further_uses_that_have_ended_are_no_difference(entitlements: Entitlements) -> None:
    service = entitlements.service
    subject_ref, _ = await a_seat(entitlements)
    ends_at = (START + timedelta(days=1)).isoformat()
    for to in ({"subject": subject_ref}, {}):
        further = {"feature": "deep-research", "amount": 2, "ends_at": ends_at, "reason": "pilot", **to}
        assert (await entitlements.post("quota-grants", further)).status_code == 201
    await eventually(lambda: service.admin.fetchval("select not exists (select from outbox)"))
    assert await compare(entitlements) == []
    service.clock.move(START + timedelta(days=1))
    assert (await entitlements.assign(2)).status_code == 201  # a rebuild has the time of the newest fact
    await eventually(lambda: service.admin.fetchval("select not exists (select from outbox)"))
    assert await compare(entitlements) == []

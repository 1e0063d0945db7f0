"""What an agency does with the reference of another agency's person takes nothing from that person's copies."""

from dataclasses import replace

import pytest

from muster_contracts.entitlements import AgencyAccess, EntitlementRevoked, SubjectAccess, SubjectAccessErased
from muster_entitlements.bootstrap import build
from muster_entitlements.settings import EntitlementsSettings
from muster_entitlements.workers import snapshots
from muster_runtime.messaging.producers import partition_of
from muster_runtime.operations.rebuild import opened
from muster_runtime.projection import Difference
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_rebuild import WITHOUT_RELAY
from tests.integration.entitlements.test_snapshots import compare, following, swap
from tests.support.eventually import eventually
from tests.support.services import PARTITIONS, ServiceRunner

# In NASA's partition, where compaction keeps one record per key.
OTHER = "HHS"
NASAS_PARTITION = partition_of(b"NASA", PARTITIONS)


async def bob_of(other: Entitlements) -> str:
    """Enroll both agencies, and give Bob a seat of the other one; returns his reference."""
    other.service.clock.move(START)
    await replace(other, agency="NASA").enroll(cap=5)
    await other.enroll(cap=5)
    reply = await other.post("seats", {"email": "bob.example@hhs.gov"})
    assert reply.status_code == 201, reply.text
    await eventually(lambda: other.service.published(SubjectAccess))
    return str(reply.json()["subject_ref"])


async def erase_by_nasa(entitlements: Entitlements, subject_ref: str) -> None:
    """Put a tombstone of NASA for somebody on the topic, as if they had lost a seat there."""
    received = (await entitlements.service.published(SubjectAccess))[-1]
    envelope = received.envelope._replace(id="test/1", type=SubjectAccessErased.event_type, agency_id="NASA")
    erased = SubjectAccessErased(agency_id="NASA", subject_ref=subject_ref)
    await entitlements.service.producer.put(envelope, erased, partition=NASAS_PARTITION)


async def test_a_grant_to_somebody_without_a_seat_erases_nobody(entitlements: Entitlements) -> None:
    other, service = replace(entitlements, agency=OTHER), entitlements.service
    bob = await bob_of(other)
    granted = await entitlements.post("grants", {"feature": "deep-research", "subject": bob, "reason": "pilot"})
    assert granted.status_code == 201, granted.text
    path = f"grants/{granted.json()['grant_id']}/revocation"
    assert (await entitlements.post(path, {"reason": "over"})).status_code == 200
    await eventually(lambda: service.published(EntitlementRevoked))
    await eventually(lambda: service.admin.fetchval("select not exists (select from outbox)"))
    assert await service.published(SubjectAccessErased) == []
    assert await compare(entitlements) == []


async def test_another_agencys_tombstone_erases_nobody_and_a_rebuild_finds_whom_compaction_would_lose(
    entitlements: Entitlements,
) -> None:
    other, service = replace(entitlements, agency=OTHER), entitlements.service
    bob = await bob_of(other)
    ann = (await entitlements.assign("ann")).json()["subject_ref"]
    await erase_by_nasa(entitlements, bob)
    async with following(entitlements) as client:
        await eventually(lambda: client.check(ann).verdict == "allowed")
        assert client.check(bob).verdict == "allowed"
    assert await swap(entitlements) == [Difference(OTHER, "the record of 1 person")]
    await eventually(lambda: service.admin.fetchval("select not exists (select from outbox)"))
    assert await compare(entitlements) == []


async def test_an_agency_whose_records_stay_in_the_outbox_does_not_stop_the_rebuild_of_the_others(
    run_service: ServiceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await run_service(build, EntitlementsSettings, roles=WITHOUT_RELAY)
    service.clock.move(START)
    entitlements = Entitlements(service)
    for agency_id in (OTHER, "NASA"):
        await replace(entitlements, agency=agency_id).enroll(cap=5)
    await service.admin.execute("delete from outbox where agency_id = 'NASA'")
    monkeypatch.setattr(snapshots, "PATIENCE_SECONDS", 0.2)
    stuck, mended = await swap(entitlements)
    assert (stuck.key, mended) == (OTHER, Difference("NASA", "its own record"))
    assert "still wait in entitlements' outbox" in stuck.obstacle
    published = "select array_agg(type) from outbox where agency_id = 'NASA' and topic like '%snapshot'"
    assert await service.admin.fetchval(published) == [AgencyAccess.event_type]


async def test_another_agencys_tombstone_in_another_partition_loses_nobody(entitlements: Entitlements) -> None:
    """Compaction works on each partition alone."""
    elsewhere = next(f"A{n}" for n in range(100) if partition_of(f"A{n}".encode(), PARTITIONS) != NASAS_PARTITION)
    bob = await bob_of(replace(entitlements, agency=elsewhere))
    async with opened(entitlements.service.runtime.service, "snapshot") as projection:
        await projection.replay()
        await erase_by_nasa(entitlements, bob)
        await projection.replay()
        assert await projection.compare() == []


async def test_what_the_topic_says_of_an_agency_that_is_not_known_is_shown_and_left(entitlements: Entitlements) -> None:
    """Its enrollment may still be read, for example after a restore."""
    await entitlements.enroll(cap=5)
    await eventually(lambda: entitlements.service.published(AgencyAccess))
    [told] = await entitlements.service.published(AgencyAccess)
    await entitlements.service.publish(told.data.model_copy(update={"agency_id": OTHER}))
    unknown = Difference(OTHER, "its own record", "entitlements does not know the agency yet")
    assert await swap(entitlements) == [unknown]
    assert await compare(entitlements) == [unknown]
    assert await entitlements.service.admin.fetchval("select count(*) from audit where agency_id = $1", OTHER) == 0

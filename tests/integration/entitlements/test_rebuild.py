"""The pools' counts, rebuilt from the topic of seats while the service runs."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from muster_contracts import write_headers
from muster_contracts.entitlements import SeatAssigned, SeatReserved, SeatRevoked
from muster_entitlements.bootstrap import build
from muster_entitlements.settings import EntitlementsSettings
from muster_entitlements.workers import rebuild
from muster_runtime.operations.rebuild import opened
from muster_runtime.process.roles import Role
from muster_runtime.projection import Difference, NotPublished, Projection
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.runtime.core.conftest import put_unreadable
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner

WITHOUT_RELAY = frozenset({Role.API, Role.CONSUMER})


def rebuilding(entitlements: Entitlements) -> AbstractAsyncContextManager[Projection]:
    return opened(entitlements.service.runtime.service, "seats-in-use")


async def compare(entitlements: Entitlements) -> Sequence[Difference]:
    async with rebuilding(entitlements) as projection:
        await projection.replay()
        return await projection.compare()


async def swap(entitlements: Entitlements) -> Sequence[Difference]:
    async with rebuilding(entitlements) as projection:
        await projection.replay()
        return await projection.swap("ticket 4712")


async def pool(entitlements: Entitlements) -> tuple[int, bool]:
    row = await entitlements.service.admin.fetchrow(
        "select in_use, limit_met from pool where agency_id = $1", entitlements.agency
    )
    assert row is not None
    return row["in_use"], row["limit_met"]


async def seat_of(entitlements: Entitlements, person: str, state: str = "assigned") -> str:
    reply = await entitlements.post("seats", {"email": f"{person}@nasa.gov", "state": state})
    assert reply.status_code == 201, reply.text
    seat_id: str = reply.json()["seat_id"]
    return seat_id


async def done(entitlements: Entitlements, path: str, body: Any = None) -> None:
    reply = await entitlements.post(path, body or {})
    assert reply.status_code == 200, reply.text


@asynccontextmanager
async def commands_all_the_time(entitlements: Entitlements) -> AsyncIterator[None]:
    """Seats come and go, as fast as the service can. The last command is answered before this ends."""
    ended = asyncio.Event()

    async def come_and_go() -> None:
        for number in itertools.count():
            if ended.is_set():
                return
            seat_id = await seat_of(entitlements, f"traveller.{number}")
            if number % 2:
                await done(entitlements, f"seats/{seat_id}/revocation")

    task = asyncio.create_task(come_and_go())
    try:
        yield
    finally:
        ended.set()
        await task


async def test_every_way_in_which_a_seat_comes_and_goes_is_counted(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=9)
    for person in ("kept", "lost"):
        await seat_of(entitlements, person, "reserved")
    for person in ("invited", "accepted"):
        invited = await seat_of(entitlements, person, "invited")
    await done(entitlements, f"seats/{invited}/activation")
    given = await seat_of(entitlements, "giver")
    await done(entitlements, f"seats/{given}/transfer", {"email": "given@nasa.gov"})
    await done(entitlements, f"seats/{given}/suspension")
    await done(entitlements, f"seats/{await seat_of(entitlements, 'gone')}/revocation")
    await entitlements.import_file("email\nrow.1@nasa.gov\nrow.2@nasa.gov\nrow.3@nasa.gov\n")
    await entitlements.import_file("email\nlost@nasa.gov\nrow.2@nasa.gov\n", "seat-revocations")
    assert await compare(entitlements) == []
    assert await pool(entitlements) == (6, False)

    # Repeated records, as from a relay that was killed, make no difference.
    for cls in (SeatReserved, SeatAssigned, SeatRevoked):
        for received in await entitlements.service.published(cls):
            await entitlements.service.producer.put(received.envelope, received.data)
    assert await compare(entitlements) == []

    await entitlements.service.publish(entitlements.withdrawn(at=START))

    async def revoked() -> bool:
        return await pool(entitlements) == (0, False)

    await eventually(revoked)
    assert await compare(entitlements) == []


async def test_a_wrong_count_is_shown_then_corrected_and_audited(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=3)
    for person in (1, 2, 3):
        assert (await entitlements.assign(person)).status_code == 201
    assert (await entitlements.assign(4)).status_code == 409
    await done(entitlements, "pool/resize", {"cap": 4})
    await entitlements.service.admin.execute("update pool set in_use = 4, limit_met = true")

    [difference] = await compare(entitlements)
    assert difference == Difference("NASA", "4 seats; 3 in the topics")
    assert await pool(entitlements) == (4, True)
    at_once = await asyncio.gather(swap(entitlements), swap(entitlements))
    assert [*at_once[0], *at_once[1]] == [difference]
    assert await pool(entitlements) == (3, False)
    assert await swap(entitlements) == []
    audited = await entitlements.service.admin.fetch(
        "select agency_id, actor, subject, reason, before, after from audit "
        "where command = 'RebuildProjection' and correlation_id like 'cor_%'"
    )
    assert [tuple(row) for row in audited] == [
        (
            *("NASA", "muster rebuild", "entitlements.seats-in-use", "ticket 4712"),
            *('{"in_use": 4}', '{"in_use": 3}'),
        )
    ]


async def test_a_limit_that_was_met_stays_so_while_no_seat_is_free(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    assert (await entitlements.assign(1)).status_code == 201
    assert (await entitlements.assign(2)).status_code == 409
    await entitlements.service.admin.execute("update pool set in_use = 0")
    assert len(await swap(entitlements)) == 1
    assert await pool(entitlements) == (1, True)


async def test_commands_that_go_on_are_no_difference_and_none_is_undone(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=100_000)
    await seat_of(entitlements, "first")
    async with commands_all_the_time(entitlements):
        for _ in range(5):
            assert await compare(entitlements) == []
            await entitlements.service.admin.execute("update pool set in_use = in_use + 7")
            assert len(await swap(entitlements)) == 1
    in_use, _ = await pool(entitlements)
    assert in_use == await entitlements.service.admin.fetchval("select count(*) from seat where state <> 'revoked'")
    assert in_use > 1


async def test_what_waits_in_the_outbox_is_waited_for(
    run_service: ServiceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await run_service(build, EntitlementsSettings, roles=WITHOUT_RELAY)
    service.clock.move(START)
    entitlements = Entitlements(service)
    await entitlements.enroll(cap=5)
    await seat_of(entitlements, "first")
    with monkeypatch.context() as impatient:
        impatient.setattr(rebuild, "PATIENCE_SECONDS", 0.2)
        with pytest.raises(NotPublished, match="still wait in entitlements' outbox"):
            await compare(entitlements)

    comparing = asyncio.create_task(compare(entitlements))
    await run_service(build, EntitlementsSettings, roles=frozenset({Role.RELAY}), beside=service)
    assert await comparing == []


async def test_a_topic_whose_beginning_is_gone_corrects_nothing(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=5)
    for person in (1, 2, 3):
        assert (await entitlements.assign(person)).status_code == 201
    assert await compare(entitlements) == []
    await delete_first_record(entitlements)
    await entitlements.service.admin.execute("update pool set in_use = 4")
    [difference] = await swap(entitlements)
    assert "the topic lacks events up to 1/3" in difference.obstacle
    assert await pool(entitlements) == (4, False)


async def test_a_record_that_cannot_be_read_corrects_nothing(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=5)
    await seat_of(entitlements, "first")
    assert await compare(entitlements) == []
    [received] = await entitlements.service.published(SeatAssigned)
    await put_unreadable(entitlements.service, "NASA")
    unheard_of = received.envelope._replace(sequence=2, type="muster.entitlements.SeatMerged.v1")
    await entitlements.service.producer.put_raw(
        SeatAssigned.topic, key=b"NASA", value=b"{}", headers=write_headers(unheard_of)
    )
    await entitlements.service.admin.execute("update stream set last_sequence = 2 where topic = $1", SeatAssigned.topic)
    async with rebuilding(entitlements) as projection:
        await projection.replay()
        [difference] = await projection.compare()
        assert (projection.records, projection.unread) == (2, 2)
    assert "cannot be read" in difference.obstacle


async def delete_first_record(entitlements: Entitlements) -> None:
    """As retention does when the topic's settings are wrong."""
    settings = entitlements.service.runtime.settings
    topic = settings.topic_prefix + SeatAssigned.topic
    first = next(record for record in await entitlements.service.reader.records() if record.topic == topic)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, first.partition): RecordsToDelete(first.offset + 1)})
    finally:
        await admin.close()

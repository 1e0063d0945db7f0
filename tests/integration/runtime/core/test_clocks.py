"""The time of a transaction when clocks differ: replicas' from one another, and from the database's."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from muster_contracts import ClockMoved, Envelope
from muster_contracts.enrollment import AgencyWithdrawn
from muster_contracts.entitlements import SeatAssigned, SeatRevoked
from muster_runtime.clock import MAX_SKEW, SandboxClock, SystemClock
from muster_runtime.database.locks import LOCK, Lock
from muster_runtime.database.transactions import EVERY_AGENCY, Database
from muster_runtime.errors import ClockSkewed
from muster_runtime.http.idempotency import KeyedRequest
from muster_runtime.messaging import positions
from muster_runtime.messaging.applier import Applier
from muster_runtime.messaging.record_reader import FUTURE
from muster_runtime.messaging.subscriptions import Subscriptions
from muster_runtime.settings import Settings
from tests.integration.runtime.core.probe.service import build, build_answering
from tests.integration.runtime.core.streams import consumed, effects, parked
from tests.support.clocks import ShiftedClock
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.limits import LIMITS
from tests.support.services import RunningService, ServiceRunner

EFFECT = "insert into effect (agency_id, event_id, sequence, seat_id) values ($1, 'e', 1, 's')"
NOON = datetime(2025, 8, 6, 12, tzinfo=UTC)
BIT = timedelta(milliseconds=5)


@pytest.fixture(params=["api", "worker"])
async def database(request: pytest.FixtureRequest, idle_probe: RunningService) -> AsyncIterator[Database]:
    """A database whose clock stands at NOON."""
    clock = SandboxClock()
    clock.move(NOON)
    access = idle_probe.access
    database = await Database(access.api_dsn if request.param == "api" else access.worker_dsn, "probe", clock).open()
    yield database
    await database.close()


@pytest.fixture
async def behind(idle_probe: RunningService) -> AsyncIterator[Database]:
    """A replica's database whose clock is a little behind."""
    clock = SandboxClock()
    clock.move(NOON - BIT)
    database = await Database(idle_probe.access.worker_dsn, "probe", clock).open()
    yield database
    await database.close()


async def instant(database: Database, *agencies: str, causes: dict[str, Envelope] | None = None) -> datetime:
    """The instant of a transaction that commits."""
    async with database.write(*agencies, context=CONTEXT) as uow:
        await uow.take_in(causes or {})
        return uow.now


def withdrawn(agency_id: str) -> AgencyWithdrawn:
    return AgencyWithdrawn(agency_id=agency_id, enrollment_id="enr_1", reason="", withdrawn_at=NOON)


async def answers(probe: RunningService, count: int) -> dict[str, list[datetime]] | None:
    """The times of the probe's answers, by agency, once there are `count` of them."""
    published = await probe.published(SeatRevoked)
    if len(published) < count:
        return None
    times: dict[str, list[datetime]] = {}
    for answer in published:
        times.setdefault(answer.data.agency_id, []).append(answer.envelope.time)
    return times


async def complaints(probe: RunningService, about: str) -> list[str] | None:
    """Why the probe is not ready, once a reason mentions `about`."""
    reply = await probe.client.get("/health/ready")
    reasons: list[str] = reply.json()["reasons"]
    return reasons if reply.status_code == 503 and any(about in reason for reason in reasons) else None


async def test_no_transaction_of_an_agency_is_dated_before_an_earlier_one(database: Database, behind: Database) -> None:
    assert await instant(behind, "NASA") == NOON - BIT
    assert await instant(database, "NASA") == NOON
    assert await instant(behind, "NASA") == NOON
    assert await instant(behind, "DOE") == NOON - BIT


@pytest.mark.parametrize(
    "lock",
    [LOCK, KeyedRequest("key", "POST /", b"").lock("NASA"), positions.lock("probe", [(AgencyWithdrawn.topic, "NASA")])],
    ids=["duty", "request", "events"],
)
async def test_a_transaction_is_dated_after_its_wait_for_the_lock(idle_probe: RunningService, lock: Lock) -> None:
    """What was read before the holder of the lock committed remains the answer for that instant."""
    clock = SystemClock()
    database = await Database(idle_probe.access.worker_dsn, "probe", clock).open()

    async def dated() -> datetime:
        async with database.write("NASA", context=CONTEXT, lock=lock) as uow:
            return uow.now

    async def waits() -> bool:
        query = "select exists (select from pg_locks where locktype = 'advisory' and not granted)"
        return bool(await idle_probe.admin.fetchval(query))

    try:
        async with database.write("NASA", context=CONTEXT):
            waiting = asyncio.create_task(dated())
            await eventually(waits)
            began = clock.now()
            await eventually(lambda: clock.now() > began + MAX_SKEW)
        assert began + MAX_SKEW / 2 < await waiting <= clock.now()  # except for the time on the network
    finally:
        await database.close()


async def test_a_transaction_of_several_agencies_has_the_latest_instant_of_any_and_passes_it_on(
    database: Database, behind: Database
) -> None:
    await instant(database, "NASA")
    assert await instant(behind, "EPA", "NASA", "DOE") == NOON
    assert await instant(behind, "DOE") == NOON
    assert await instant(behind, EVERY_AGENCY) == NOON - BIT


async def test_what_is_rolled_back_dates_nothing(database: Database, behind: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.write("NASA", context=CONTEXT):
            raise ZeroDivisionError
    assert await instant(behind, "NASA") == NOON - BIT


async def test_an_effect_is_not_dated_before_its_cause(run_service: ServiceRunner) -> None:
    probe = await run_service(build_answering, Settings)
    probe.clock.move(NOON - BIT)
    await probe.publish(withdrawn("NASA"), time=NOON)
    await eventually(lambda: answers(probe, 1))  # otherwise one transaction may apply both, with one instant
    await probe.publish(withdrawn("DOE"), time=NOON - 2 * BIT)
    assert await eventually(lambda: answers(probe, 2)) == {"NASA": [NOON], "DOE": [NOON - BIT]}


async def test_an_agency_ahead_of_the_clock_dates_no_other_agencys_effects(run_service: ServiceRunner) -> None:
    clock = ShiftedClock(timedelta())
    probe = await run_service(build_answering, Settings, roles=frozenset(), clock=clock)
    database, handlers = probe.runtime.database, probe.runtime.service.subscriptions
    subscriptions = Subscriptions(handlers, service="probe", group="probe", clock=database.clock)
    applier = Applier(database, subscriptions, LIMITS)
    ahead = clock.now() + timedelta(seconds=50)
    assert (
        await applier.apply([consumed(withdrawn("NASA"), 1, ahead), consumed(withdrawn("DOE"), 1, clock.now())]) == []
    )
    assert (
        await applier.apply([consumed(withdrawn("NASA"), 2, clock.now()), consumed(withdrawn("EPA"), 1, clock.now())])
        == []
    )
    outbox = await probe.admin.fetch("select agency_id, time from outbox order by id")
    assert [row["time"] for row in outbox if row["agency_id"] == "NASA"] == [ahead, ahead]
    assert [row["time"] < ahead for row in outbox if row["agency_id"] != "NASA"] == [True, True]


async def test_a_replayed_effect_is_not_dated_before_its_cause(run_service: ServiceRunner) -> None:
    probe = await run_service(build_answering, Settings)
    probe.clock.move(NOON - BIT)
    (envelope,) = await probe.publish(withdrawn("NASA"), time=NOON - BIT)
    late = envelope._replace(sequence=3, id=f"{envelope.id}-late", time=NOON)
    await probe.producer.put(late, withdrawn("NASA"))
    await eventually(lambda: probe.admin.fetchval("select count(*) from parked_stream"))
    topic = AgencyWithdrawn.topic
    await probe.client.post(f"/v1/streams/{topic}/NASA/gap", json={"waiting": 3, "reason": "the backup lacks one"})
    await probe.client.post(f"/v1/parked/{topic}/NASA/replay")
    assert await eventually(lambda: answers(probe, 2)) == {"NASA": [NOON - BIT, NOON]}
    assert await probe.admin.fetchval("select latest from agency_instant where agency_id = 'NASA'") == NOON


@pytest.mark.parametrize("offset", [timedelta(seconds=5), timedelta(seconds=-5)], ids=["ahead", "behind"])
async def test_a_clock_far_from_the_databases_writes_nothing(idle_probe: RunningService, offset: timedelta) -> None:
    clock = ShiftedClock(offset)
    database = await Database(idle_probe.access.api_dsn, "probe", clock).open()
    try:
        with pytest.raises(ClockSkewed, match=r"this process's clock reads 20.*and Postgres' reads 20"):
            async with database.write("NASA", context=CONTEXT) as uow:
                await uow.connection.execute(EFFECT, "NASA")
        with pytest.raises(ClockSkewed):  # the record of the read would have a wrong time
            async with database.read_on_record("NASA"):
                pass
        assert await idle_probe.admin.fetchval("select count(*) from effect") == 0
        assert await idle_probe.admin.fetchval("select count(*) from agency_instant") == 0
        clock.offset = timedelta(milliseconds=900)
        async with database.write("NASA", context=CONTEXT) as uow:
            await uow.connection.execute(EFFECT, "NASA")
    finally:
        await database.close()


@pytest.mark.parametrize("offset", [timedelta(seconds=5), timedelta(seconds=-5)], ids=["ahead", "behind"])
async def test_a_process_whose_clock_is_wrong_is_not_ready_and_waits_until_it_is_set_right(
    run_service: ServiceRunner, offset: timedelta
) -> None:
    clock = ShiftedClock(timedelta())
    probe = await run_service(build, Settings, clock=clock)
    async with probe.runtime.database.write("GSA", context=CONTEXT) as uow:
        uow.publish(SeatRevoked(agency_id="GSA", seat_id="s", subject_ref="sub_1", reason="requested"))
    await eventually(lambda: answers(probe, 1))  # from here on the relay does not take another's event for its own
    clock.offset = offset
    await probe.producer.publish([SeatAssigned(agency_id="NASA", seat_id="s", subject_ref="sub_1")], NOON)
    await probe.admin.execute("insert into deadline values ('revoke', 'DOE', 'seat_1', $1)", NOON)
    reasons = await eventually(lambda: complaints(probe, "the consumer"))
    assert any(
        reason.startswith("this process's clock reads 20") and "Postgres' reads 20" in reason for reason in reasons
    )
    assert await probe.admin.fetchval("select count(*) from effect") == 0
    assert await probe.admin.fetchval("select count(*) from outbox") == 0
    assert await probe.admin.fetchval("select count(*) from deadline") == 1
    clock.offset = timedelta()
    await eventually(lambda: probe.admin.fetchval("select count(*) from effect"))
    await eventually(lambda: answers(probe, 2))
    health = await probe.client.get("/health/ready")
    assert (health.status_code, "clock" in str(health.json()["warnings"])) == (200, False)
    clock.offset = offset / abs(offset.total_seconds()) * 0.8
    health = await probe.client.get("/health/ready")
    assert (health.status_code, "clock" in str(health.json()["warnings"])) == (200, True)


async def test_an_event_from_the_future_stays_parked_until_its_time_has_come_and_it_is_replayed(
    run_service: ServiceRunner,
) -> None:
    clock = ShiftedClock(timedelta())
    probe = await run_service(build, Settings, clock=clock)
    early = SeatAssigned(agency_id="NASA", seat_id="s", subject_ref="sub_1")
    await probe.producer.publish([early], clock.now() + FUTURE + timedelta(seconds=5))
    assert "in the future" in await eventually(lambda: parked(probe, "NASA"))

    async def is_free() -> bool:
        return (await probe.client.post(f"/v1/parked/{SeatAssigned.topic}/NASA/replay")).json()["parked"] is False

    assert not await is_free()
    await eventually(is_free)
    assert await effects(probe, "NASA") == ["s"]


async def test_a_sandboxs_clock_does_not_follow_a_move_back(probe: RunningService) -> None:
    moves: list[datetime] = []
    probe.clock.on_move(lambda: moves.append(probe.clock.now()))
    for now in (NOON, NOON - BIT, NOON + BIT):
        value = ClockMoved(now=now).model_dump_json().encode()
        await probe.producer.put_raw(ClockMoved.topic, key=None, value=value, headers=[])
    await eventually(lambda: NOON + BIT in moves)
    assert moves == [NOON, NOON + BIT]

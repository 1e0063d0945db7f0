"""After an absence: events that arrived meanwhile are read before deadlines that fell due are handled."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from muster_contracts.enrollment import AgencyWithdrawn
from muster_contracts.entitlements import SeatRevoked
from muster_runtime.clock import SandboxClock
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.database.wakeup import WakeupListener
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.events import Received
from muster_runtime.process.roles import Role
from muster_runtime.scheduling import deadlines, news, scheduler
from muster_runtime.scheduling.news import ENDS_UNKNOWN, Ends, News, ask_for_ends
from muster_runtime.scheduling.scheduler import Scheduler
from muster_runtime.service import Service
from muster_runtime.settings import Settings
from tests.integration.runtime.core.probe.service import SCHEMA, revoke_when_due
from tests.support.eventually import eventually
from tests.support.limits import LIMITS
from tests.support.services import PARTITIONS, RunningService, ServiceRunner

TOPIC = AgencyWithdrawn.topic
DAY_5 = datetime(2026, 3, 5, 12, tzinfo=UTC)
DAY_10, DAY_30, DAY_40 = (DAY_5 + timedelta(days=days) for days in (5, 25, 35))


async def forget_what_is_due(uow: UnitOfWork, events: Sequence[Received[AgencyWithdrawn]]) -> None:
    for event in events:
        deadlines.cancel(uow, event.data.agency_id, "revoke", ["seat_1"])


def build(settings: Settings) -> Service:
    """The probe as a service whose deadlines an event of another service cancels."""
    return Service(
        schema=SCHEMA,
        settings=settings,
        produces=[SeatRevoked.topic],
        subscriptions={AgencyWithdrawn: forget_what_is_due},
        deadlines={"revoke": revoke_when_due},
    )


def withdrawn(agency_id: str) -> AgencyWithdrawn:
    return AgencyWithdrawn(agency_id=agency_id, enrollment_id="enr_1", withdrawn_at=DAY_10, reason="reorganized")


async def away(run_service: ServiceRunner, *agencies: str) -> RunningService:
    """The probe away from day 5 on: on day 30 something falls due for each agency."""
    probe = await run_service(build, Settings, roles=frozenset(), clock=clock(DAY_5))
    for agency_id in agencies:
        await probe.admin.execute("insert into deadline values ('revoke', $1, 'seat_1', $2)", agency_id, DAY_30)
    return probe


def clock(now: datetime) -> SandboxClock:
    clock = SandboxClock()
    clock.move(now)
    return clock


async def back(run_service: ServiceRunner, probe: RunningService, *roles: Role) -> RunningService:
    return await run_service(build, Settings, roles=frozenset(roles), beside=probe, clock=clock(DAY_40))


async def revoked(probe: RunningService) -> list[str]:
    return [event.envelope.agency_id for event in await probe.published(SeatRevoked)]


async def left(probe: RunningService) -> list[str]:
    return [row["agency_id"] for row in await probe.admin.fetch("select agency_id from deadline order by agency_id")]


async def is_(answer: Awaitable[Any], expected: Any) -> bool:
    found = await answer
    assert found == expected, found
    return True


async def warnings(probe: RunningService) -> list[str]:
    reply = await probe.client.get("/health/ready")
    found: list[str] = reply.json()["warnings"]
    return found


async def test_what_arrived_during_an_absence_is_read_before_deadlines_are_handled(run_service: ServiceRunner) -> None:
    probe = await away(run_service, "DOE", "NASA")
    await probe.producer.publish([withdrawn("NASA")], DAY_10)
    scheduler = await back(run_service, probe, Role.SCHEDULER, Role.RELAY)
    assert await eventually(lambda: warnings(scheduler))
    assert "NASA" in await left(probe)
    await back(run_service, probe, Role.CONSUMER)
    await eventually(lambda: is_(left(probe), []))
    await eventually(lambda: is_(revoked(probe), ["DOE"]))
    await eventually(lambda: is_(warnings(scheduler), []))


async def test_a_parked_stream_holds_back_its_own_agency_alone(run_service: ServiceRunner) -> None:
    probe = await away(run_service, "DOE", "NASA")
    await probe.producer.put_raw(TOPIC, key=b"NASA", value=b"junk", headers=[])
    service = await back(run_service, probe, Role.SCHEDULER, Role.RELAY, Role.CONSUMER)
    await eventually(lambda: is_(revoked(probe), ["DOE"]))
    expected = f"deadlines wait: its stream of {TOPIC} is parked (agencies: 1)"
    await eventually(lambda: is_(warnings(service), [expected]))
    assert await left(probe) == ["NASA"]
    shown = (await service.client.get(f"/v1/parked/{TOPIC}/NASA")).json()["first_records"]
    body = {"reason": "worthless", "records": [{name: shown[0][name] for name in ("partition", "offset")}]}
    reply: httpx.Response = await service.client.post(f"/v1/parked/{TOPIC}/NASA/discard", json=body)
    assert reply.status_code == 200, reply.text
    await eventually(lambda: is_(left(probe), []))


@pytest.mark.parametrize("late", [timedelta(), timedelta(seconds=1)])
async def test_without_an_absence_a_deadline_waits_for_nothing(run_service: ServiceRunner, late: timedelta) -> None:
    """No consumer runs, and there is something to read."""
    probe = await away(run_service, "NASA")
    await probe.producer.publish([withdrawn("NASA")], DAY_10)
    await run_service(build, Settings, roles=frozenset({Role.SCHEDULER}), beside=probe, clock=clock(DAY_30 + late))
    await eventually(lambda: is_(left(probe), []))


@asynccontextmanager
async def silent_kafka() -> AsyncIterator[KafkaConnection]:
    """A Kafka that accepts connections and never answers."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(swallow, "127.0.0.1", 0) as server:
        yield KafkaConnection.plain(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")


@asynccontextmanager
async def scheduling(probe: RunningService, kafka: KafkaConnection) -> AsyncIterator[Scheduler]:
    """Run a scheduler of the probe until the block ends."""
    database, wakeup = probe.runtime.database, WakeupListener("", "probe", probe.clock).wakeup()
    read = News(database, probe.clock, "probe", Ends(probe.clock, kafka, probe.topic_prefix, {TOPIC: PARTITIONS}))
    handlers = {"revoke": revoke_when_due}
    running = Scheduler(database, wakeup, probe.clock, handlers, "probe", read, LIMITS.streams)
    task = asyncio.create_task(running.run())
    yield running
    task.cancel()
    await asyncio.wait([task])


async def test_late_deadlines_delay_no_other_while_kafka_is_silent(
    run_service: ServiceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it is silent, and however many are late: here, as many as the scheduler reads at once."""
    monkeypatch.setattr(news, "PATIENCE_SECONDS", 600)
    monkeypatch.setattr(scheduler, "POSTPONE_SECONDS", 0)
    late = [f"AG{number:03}" for number in range(100)]
    probe = await away(run_service, *late)
    instants = [DAY_30 + timedelta(seconds=seconds) for seconds in (11, 13, 17)]
    for instant in instants:
        await probe.admin.execute("insert into deadline values ('revoke', 'NASA', $1, $2)", str(instant), instant)
    probe.clock.move(DAY_30 + timedelta(seconds=10))
    async with silent_kafka() as kafka, scheduling(probe, kafka) as running:
        await eventually(lambda: running.waiting == dict.fromkeys(late, ENDS_UNKNOWN))
        for handled, instant in enumerate(instants, start=1):
            probe.clock.move(instant)
            await eventually(lambda handled=handled: running.handled == handled)
        assert await left(probe) == late


async def test_ends_that_kafka_was_asked_for_before_they_were_forgotten_are_not_known(
    run_service: ServiceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def ask(*arguments: Any) -> Any:
        may_answer = asyncio.Event()
        asked.put_nowait(may_answer)
        await may_answer.wait()
        return await ask_for_ends(*arguments)

    monkeypatch.setattr(news, "ask_for_ends", ask)
    probe = await away(run_service)
    ends = Ends(probe.clock, probe.runtime.kafka, probe.topic_prefix, {TOPIC: PARTITIONS})
    task = asyncio.create_task(ends.run())
    assert not ends.are_known()
    before = await asked.get()
    ends.forget()
    before.set()
    await ends.wait(10)
    assert not ends.are_known()
    (await asked.get()).set()
    await eventually(ends.are_known)
    probe.clock.move(DAY_10)  # what was known before is not the end as of now
    assert not ends.are_known(DAY_10)
    (await asked.get()).set()
    await eventually(lambda: ends.are_known(DAY_10))
    task.cancel()
    await asyncio.wait([task])

"""A lease: one process leads, whatever the clocks do and however the processes are named."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from aiokafka.errors import KafkaError

from muster_contracts.entitlements import PersonRecorded
from muster_runtime.messaging import trust
from muster_runtime.messaging.lease import LEASE_SECONDS, Lease
from muster_runtime.messaging.producers import Producer
from muster_runtime.process.roles import Role
from muster_runtime.settings import Settings
from tests.integration.runtime.core.conftest import ProbeStarter
from tests.integration.runtime.core.probe.service import build
from tests.integration.runtime.core.relays import outbox_is_empty, relaying, seat
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner


async def test_of_two_processes_that_nobody_has_named_one_leads(
    idle_probe: RunningService, probe_process: ProbeStarter
) -> None:
    """Both run; when the leader is killed, the other takes its place, under its own name."""
    processes = [await probe_process("relay", named=False) for _ in range(2)]
    await eventually(lambda: both_run(idle_probe))
    leader = await eventually(lambda: holder(idle_probe))
    (leading,) = [process for process in processes if f"-{process.pid}-" in leader]
    leading.kill()
    (following,) = [process for process in processes if process is not leading]

    async def follows() -> bool:
        assert f"-{following.pid}-" in (await holder(idle_probe) or "")
        return True

    await eventually(follows, timeout=2 * LEASE_SECONDS + 5)


async def both_run(probe: RunningService) -> bool:
    """As the test's own process does, each has a listener, with which its duties start."""
    bells = await probe.admin.fetchval(
        """
        select count(*)
        from pg_stat_activity
        where application_name = 'muster-probe-wakeup' and datname = current_database()
        """
    )
    assert bells == 3
    return True


async def holder(probe: RunningService) -> str | None:
    name: str | None = await probe.admin.fetchval(
        "select holder from lease where duty = 'relay' and expires_at > clock_timestamp()"
    )
    return name


async def test_a_released_lease_wakes_the_processes_that_wait_for_it(idle_probe: RunningService) -> None:
    """Otherwise an event that was written before the release waits for the next one, or for a poll."""
    wakeup = idle_probe.runtime.wakeup
    await wakeup.wait()  # it wakes when it starts to listen
    lease = Lease(idle_probe.runtime.database, "duty", "me")
    await lease.take()
    assert not wakeup._woken.is_set()
    await lease.release()
    await eventually(lambda: wakeup._woken.is_set())


async def test_a_relay_that_stops_gives_back_the_leases_of_its_lanes(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if a producer is slow to close: otherwise agencies would wait until the leases expire."""
    close = Producer.close

    async def close_slowly(self: Producer) -> None:
        for _ in range(100):
            await asyncio.sleep(0)
        await close(self)

    monkeypatch.setattr(Producer, "close", close_slowly)
    async with idle_probe.runtime.database.write("NASA", context=CONTEXT) as uow:
        uow.publish(seat("NASA", "one"))
        uow.publish(PersonRecorded(agency_id="NASA", subject_ref="sub_1", name="Ada", email="ada@nasa.gov"))
    async with relaying(idle_probe):
        await eventually(lambda: outbox_is_empty(idle_probe))
    assert await idle_probe.admin.fetch("select duty from lease") == []


@pytest.mark.parametrize("step", ["take", "release"])
async def test_a_lease_is_given_back_wherever_its_holder_is_canceled(idle_probe: RunningService, step: str) -> None:
    """Postgres may have stored the lease, or may still hold it, when a cancellation loses the answer."""
    kept = []
    for turns in range(1, 60):
        lease = Lease(idle_probe.runtime.database, "duty", "me")
        if step == "release":
            await lease.take()
        task = asyncio.create_task(lease.take() if step == "take" else lease.release())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await lease.release()  # as its holder does at its end
        if await idle_probe.admin.fetchval("delete from lease returning duty"):
            kept.append(turns)
    assert kept == []


async def test_a_relay_that_is_canceled_while_a_producer_closes_closes_it(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The producer of a failed attempt: a single cancellation must not leave its sockets and tasks behind."""
    begun, closed, closing = set[Producer](), set[Producer](), asyncio.Event()
    close = Producer.close

    async def close_slowly(self: Producer) -> None:
        begun.add(self)
        closing.set()
        for _ in range(100):
            await asyncio.sleep(0)
        await close(self)
        closed.add(self)

    async def fail(*_: object) -> None:
        raise KafkaError("lost")

    monkeypatch.setattr(Producer, "close", close_slowly)
    monkeypatch.setattr(trust, "refuse_restored", fail)
    async with idle_probe.runtime.database.write("NASA", context=CONTEXT) as uow:
        uow.publish(seat("NASA", "one"))
    async with relaying(idle_probe):
        await asyncio.wait_for(closing.wait(), 30)
    assert closed == begun
    assert await idle_probe.admin.fetch("select duty from lease") == []


async def test_a_lease_of_a_clock_that_was_ahead_can_be_taken(idle_probe: RunningService) -> None:
    """The database's clock was a year ahead, and has been corrected."""
    await idle_probe.admin.execute(
        "insert into lease values ('duty', 'somebody', clock_timestamp() + $1)", timedelta(days=365)
    )
    assert await Lease(idle_probe.runtime.database, "duty", "me").take()
    assert not await Lease(idle_probe.runtime.database, "duty", "another").take()
    left = await idle_probe.admin.fetchval("select expires_at - clock_timestamp() from lease where duty = 'duty'")
    assert left < timedelta(seconds=LEASE_SECONDS)


async def test_the_connection_that_wakes_notices_a_server_that_has_vanished(run_service: ServiceRunner) -> None:
    """Without the kernel's probes it would wait forever: nothing is ever sent on it."""
    probe = await run_service(build, Settings, roles=frozenset({Role.API}))

    async def probed() -> bool:
        ports = await probe.admin.fetchrow(
            "select client_port, inet_server_port() from pg_stat_activity "
            "where application_name = 'muster-probe-wakeup' and datname = current_database()"
        )
        return ports is not None and _probes(*ports)

    assert await eventually(probed)


def _probes(local: int, remote: int) -> bool:
    """Whether the kernel keeps a keepalive timer for the socket with these ports (timer 2 of proc(5)).

    Until the last bytes that were sent are acknowledged it keeps another timer in its place. A socket to another server
    may have the same local port.
    """
    for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
        fields = line.split()
        if [int(address.rpartition(":")[2], 16) for address in fields[1:3]] == [local, remote]:
            return fields[5].startswith("02:")
    raise AssertionError(f"there is no socket from port {local} to port {remote}")

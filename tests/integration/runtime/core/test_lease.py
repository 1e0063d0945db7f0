"""A lease: one process leads, whatever the clocks do and however the processes are named."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from muster_runtime.lease import LEASE_SECONDS, Lease
from muster_runtime.process import Role
from muster_runtime.settings import Settings
from tests.integration.runtime.core.probe.service import build
from tests.support.services import RunningService, ServiceRunner

Eventually = Callable[..., Awaitable[Any]]


async def test_of_two_replicas_that_nobody_has_named_one_leads(run_service: ServiceRunner) -> None:
    first = await run_service(build, Settings, roles=frozenset(), instance="")
    second = await run_service(build, Settings, roles=frozenset(), instance="", beside=first)
    leases = [
        Lease(probe.runtime.database, "duty", probe.runtime.settings.instance or probe.runtime.service.name)
        for probe in (first, second)
    ]
    assert [await lease.take() for lease in leases] == [True, False]


async def test_an_expiry_of_a_clock_that_was_ahead_can_be_taken(idle_probe: RunningService) -> None:
    """The database's clock was a year ahead, and has been put right."""
    await idle_probe.admin.execute(
        "insert into lease values ('duty', 'somebody', clock_timestamp() + $1)", timedelta(days=365)
    )
    assert await Lease(idle_probe.runtime.database, "duty", "me").take()
    assert not await Lease(idle_probe.runtime.database, "duty", "another").take()
    left = await idle_probe.admin.fetchval("select expires_at - clock_timestamp() from lease where duty = 'duty'")
    assert left < timedelta(seconds=LEASE_SECONDS)


async def test_the_connection_that_wakes_notices_a_server_that_has_vanished(
    run_service: ServiceRunner, eventually: Eventually
) -> None:
    """Without the kernel's probes it would wait for ever: nothing is ever sent on it."""
    probe = await run_service(build, Settings, roles=frozenset({Role.API}))

    async def probed() -> bool:
        port: int | None = await probe.admin.fetchval(
            "select client_port from pg_stat_activity "
            "where application_name = 'muster-probe-bell' and datname = current_database()"
        )
        return port is not None and _probes(port)

    assert await eventually(probed)


def _probes(port: int) -> bool:
    """Whether the kernel keeps a keepalive timer for the socket with this local port (timer 2 of proc(5)).

    Until the last bytes that were sent are acknowledged it keeps another timer in its place.
    """
    for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port:
            return fields[5].startswith("02:")
    raise AssertionError(f"there is no socket with the local port {port}")

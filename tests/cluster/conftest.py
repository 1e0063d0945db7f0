"""Fixtures for the cluster tests: the servers in the cluster, a release on them, and the traffic.

The tests run in the cluster's network: tests/cluster/run starts the cluster, loads the images, and starts pytest.
"""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.cluster import release as chart
from tests.cluster.figures import record, recorded
from tests.cluster.kube import MUSTER, RUN, Kube
from tests.cluster.release import Release
from tests.cluster.servers import Servers
from tests.cluster.traffic import Traffic, import_register


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort what nothing can follow to the end: the others stay in their order."""
    items.sort(key=lambda item: item.get_closest_marker("comes_last") is not None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the measurements."""
    terminalreporter.section("measured")
    for line in recorded():
        terminalreporter.write_line(line)


@dataclass(frozen=True)
class Ready:
    """A release whose pods are all ready, and the duration of its install in seconds."""

    servers: Servers
    seconds: float


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of all random choices; CLUSTER_SEED repeats a run."""
    chosen = int(os.environ.get("CLUSTER_SEED") or secrets.randbelow(10**9))
    record("seed", f"CLUSTER_SEED={chosen}")
    return chosen


@pytest.fixture(scope="session")
def nodes() -> int:
    return int((RUN / "nodes").read_text("utf-8"))


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory, nodes: int) -> Servers:
    """Postgres, Kafka, a mail sink, and an issuer's keys in the cluster; three brokers if there are three nodes."""
    made = Servers(Path(tmp_path_factory.mktemp("servers")), brokers=3 if nodes > 2 else 1)
    started = time.monotonic()

    async def install() -> None:
        async with Kube() as kube:
            await made.install(kube)

    asyncio.run(install())
    record("servers accept clients after", f"{time.monotonic() - started:.0f} s")
    return made


@pytest.fixture(scope="session")
def installed(servers: Servers) -> Ready:
    """A release on a fresh cluster. The measured time excludes creating databases, topics, and rights."""

    async def install() -> float:
        accesses = await servers.provision()
        async with Kube() as kube:
            await kube.apply([chart.namespace(MUSTER)])
            await kube.apply(servers.secrets_of_services(accesses))
            started = time.monotonic()
            await Release(kube).install(chart.values(servers))
            await kube.rolled_out()
            seconds = time.monotonic() - started
            used = psutil.virtual_memory().used / 2**30
            record("memory of the machine in use, with the cluster and the servers", f"{used:.1f} GiB")
        await import_register(servers)
        return seconds

    return Ready(servers, asyncio.run(install()))


@pytest.fixture
async def kube(installed: Ready) -> AsyncIterator[Kube]:
    """A connection to the cluster, with the release installed."""
    async with Kube() as made:
        yield made


@pytest.fixture(scope="session")
def traffic(installed: Ready, seed: int) -> Traffic:
    return Traffic(installed.servers, seed)

"""The runbooks for Kubernetes are followed, command by command; afterward, the books balance."""

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from tests.cluster.conftest import Ready
from tests.cluster.kube import HOME, KUBECONFIG, Kube
from tests.cluster.release import values
from tests.cluster.runbooks import PAGES, Desk, find_nothing, release_deadlines
from tests.support.eventually import eventually


@pytest.fixture
def desk(kube: Kube, installed: Ready, tmp_path: Path) -> Desk:
    return Desk(tmp_path, values(installed.servers))


async def test_looking_at_a_service_and_restarting_it(kube: Kube, desk: Desk) -> None:
    (block,) = PAGES["runbooks/README.md"]
    chosen = {"SERVICE": "billing", "ROLE": "consumer"}
    for line in block.splitlines():
        if "port-forward" in line:
            await _forwarded_port_answers(line.replace("$SERVICE", "billing").replace("$ROLE", "consumer"))
        else:
            assert await desk.run(line, **chosen)
            await kube.rolled_out()
    await kube.rolled_out()


@pytest.mark.comes_last  # it raises an epoch, and the traffic's oracle proves streams of the first
async def test_restoring_a_service(kube: Kube, installed: Ready, desk: Desk) -> None:
    _, migrated, raised, _ = await desk.follow("restore.md", SERVICE="billing")
    assert "billing-migrate condition met" in migrated, migrated
    assert re.search(r"epoch", raised), raised
    await kube.rolled_out()
    await release_deadlines(installed.servers, desk.folder / "home", "billing")
    await find_nothing(installed.servers, desk.folder / "home")


@pytest.mark.comes_last  # it raises an epoch, and the traffic's oracle proves streams of the first
async def test_a_failover_that_lost_commits_of_two_services(kube: Kube, installed: Ready, desk: Desk) -> None:
    _, migrated, raised, _ = await desk.follow("failover.md", SERVICES="billing notify", STOPPED="{billing,notify}")
    assert migrated.count("condition met") == 2, migrated
    assert raised.count("epoch") >= 2, raised
    await kube.rolled_out()
    await release_deadlines(installed.servers, desk.folder / "home", "billing", "notify")
    await find_nothing(installed.servers, desk.folder / "home")


async def _forwarded_port_answers(line: str) -> None:
    kubectl = [str(HOME / "bin" / "kubectl"), "--kubeconfig", str(KUBECONFIG), *line.replace('"', "").split()[1:]]
    forwarding = await asyncio.create_subprocess_exec(*kubectl)
    try:
        await eventually(_is_ready_there, timeout=30)
    finally:
        forwarding.terminate()
        await forwarding.wait()


async def _is_ready_there() -> bool:
    async with httpx.AsyncClient(trust_env=False) as http:
        try:
            return (await http.get("http://127.0.0.1:8000/health/ready")).status_code == 200
        except httpx.TransportError:
            return False

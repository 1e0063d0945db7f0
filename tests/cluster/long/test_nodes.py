"""Lost nodes: one is drained and comes back, one is killed."""

import time
from pathlib import Path

from tests.cluster.conftest import Ready
from tests.cluster.figures import record
from tests.cluster.kube import SCRIPT, Kube, command
from tests.cluster.release import values
from tests.cluster.runbooks import PAGES, Desk
from tests.cluster.traffic import Traffic
from tests.support.eventually import eventually

NOTICED_SECONDS = 60

# Until its pods are replaced on the others.
EVICTED_SECONDS = 60

# Until a node that starts again is ready.
BACK_SECONDS = 120


async def test_a_node_is_drained_and_comes_back(kube: Kube, installed: Ready, traffic: Traffic, tmp_path: Path) -> None:
    desk = Desk(tmp_path, values(installed.servers))
    drain, back = PAGES["runbooks/drain.md"]
    async with traffic.flowing() as counted:
        started = time.monotonic()
        await desk.run(drain, NODE="node3")
        drained = time.monotonic() - started
        await kube.rolled_out()
        ready = time.monotonic() - started
        await desk.run(back, NODE="node3")
    record("a node is drained", f"{drained:.0f} s, all ready after {ready:.0f} s, {counted}")
    assert counted.failures == []


async def test_a_node_is_killed_and_comes_back(kube: Kube, traffic: Traffic) -> None:
    async with traffic.flowing() as counted:
        started = time.monotonic()
        await command(str(SCRIPT), "kill-node", "2")
        try:
            await eventually(lambda: _is_ready(kube, "node2", "Unknown"), timeout=NOTICED_SECONDS)
            noticed = time.monotonic() - started
            # Until then, its pods seem ready.
            await eventually(lambda: _is_left(kube, "node2"), timeout=EVICTED_SECONDS)
            await kube.rolled_out()
            ready = time.monotonic() - started
        finally:
            await command(str(SCRIPT), "start-node", "2")
        await eventually(lambda: _is_ready(kube, "node2", "True"), timeout=BACK_SECONDS)
        await eventually(lambda: _old_pods_are_gone(kube), timeout=BACK_SECONDS)
        await kube.rolled_out()
        back = time.monotonic() - started
    found = f"noticed after {noticed:.0f} s, all ready on the others after {ready:.0f} s, back after {back:.0f} s"
    record("a node is killed", f"{found}, {counted}")


async def _is_left(kube: Kube, node: str) -> bool:
    pods = [pod for pod in await kube.pods("muster/role!=migrate") if pod["spec"].get("nodeName") == node]
    return all("deletionTimestamp" in pod["metadata"] for pod in pods)


async def _old_pods_are_gone(kube: Kube) -> bool:
    """Whether the node has confirmed that its earlier pods do not run."""
    return not any("deletionTimestamp" in pod["metadata"] for pod in await kube.pods())


async def _is_ready(kube: Kube, node: str, status: str) -> bool:
    conditions = (await kube.get(f"/api/v1/nodes/{node}"))["status"]["conditions"]
    return any(c["type"] == "Ready" and c["status"] == status for c in conditions)

"""Consumers are scaled up and down, and Helm takes their number back, as the runbook says."""

import time
from pathlib import Path

from tests.cluster.conftest import Ready
from tests.cluster.figures import record
from tests.cluster.kube import MUSTER, Kube
from tests.cluster.release import values
from tests.cluster.runbooks import Desk
from tests.cluster.traffic import Traffic

TAKE_BACK = "helm upgrade muster infra/chart/muster -n muster --values values.yaml --no-hooks --force-conflicts"


async def test_consumers_are_scaled_from_one_to_four_to_two(
    kube: Kube, installed: Ready, traffic: Traffic, tmp_path: Path
) -> None:
    desk = Desk(tmp_path, values(installed.servers))
    steps = []
    async with traffic.flowing() as counted:
        for replicas in (1, 4):
            started = time.monotonic()
            await kube.kubectl(
                "-n", MUSTER, "scale", "deployment", "-l", "muster/role=consumer", f"--replicas={replicas}"
            )
            await kube.rolled_out()
            steps.append(f"to {replicas} in {time.monotonic() - started:.0f} s")
        await desk.run(TAKE_BACK)
        await kube.rolled_out()
    record("consumers scaled", f"{', '.join(steps)}, {counted}")
    assert counted.failures == []

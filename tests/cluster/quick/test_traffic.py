"""Planned disturbances under live traffic: no request fails, and nothing is lost, duplicated, or out of order."""

import random
import time
from pathlib import Path

from muster_contracts import SERVICES
from tests.cluster.conftest import Ready
from tests.cluster.figures import record
from tests.cluster.kube import MUSTER, Kube
from tests.cluster.runbooks import find_nothing
from tests.cluster.traffic import Traffic
from tests.support.eventually import eventually

DELETIONS = 6


async def test_every_deployment_is_restarted(kube: Kube, traffic: Traffic) -> None:
    async with traffic.flowing() as counted:
        started = time.monotonic()
        for service in SERVICES:
            chosen = ("--selector", f"app.kubernetes.io/component={service}")
            await kube.kubectl("-n", MUSTER, "rollout", "restart", "deployment", *chosen)
            await kube.rolled_out()
        seconds = time.monotonic() - started
    record("rolling restart of every Deployment, one service after another", f"{seconds:.0f} s, {counted}")
    assert counted.failures == []


async def test_a_pod_of_each_role_is_deleted(kube: Kube, traffic: Traffic, seed: int) -> None:
    dice = random.Random(f"{seed}/deletions")
    seconds = []
    async with traffic.flowing() as counted:
        for role in dice.sample(["api", "consumer", "relay", "scheduler", "worker", "api"], DELETIONS):
            pod = dice.choice(await kube.pods(f"muster/role={role}"))["metadata"]["name"]
            print(f"deleting {pod}")
            started = time.monotonic()
            await kube.delete_pod(pod)
            await eventually(lambda: kube.are_gone(pod), timeout=60)  # noqa: B023 - awaited in turn
            await kube.rolled_out()
            seconds.append(time.monotonic() - started)
    record("a pod deleted, until all is ready again", f"{max(seconds):.0f} s at most of {DELETIONS}, {counted}")
    assert counted.failures == []


async def test_the_operators_own_checks_find_nothing(kube: Kube, installed: Ready, tmp_path: Path) -> None:
    await find_nothing(installed.servers, tmp_path / "home")

"""Random pods are killed: nothing is lost, duplicated, or out of order."""

import random
import time

from tests.cluster.figures import record
from tests.cluster.kube import Kube
from tests.cluster.traffic import Traffic
from tests.support.eventually import eventually

DELETIONS = 20
ROLES = ("api", "consumer", "relay", "scheduler", "worker")


async def test_twenty_pods_are_killed_at_random(kube: Kube, traffic: Traffic, seed: int) -> None:
    dice = random.Random(f"{seed}/kills")
    started = time.monotonic()
    async with traffic.flowing() as counted:
        for number in range(DELETIONS):
            pod = dice.choice(await kube.pods(f"muster/role={ROLES[number % len(ROLES)]}"))["metadata"]["name"]
            print(f"killing {pod}")
            await kube.delete_pod(pod, grace=0)
            await eventually(lambda: _is_gone(kube, pod), timeout=60)  # noqa: B023 - awaited in turn
            await kube.rolled_out()
    record(f"{DELETIONS} pods killed, one after another", f"{time.monotonic() - started:.0f} s, {counted}")


async def _is_gone(kube: Kube, name: str) -> bool:
    return name not in {pod["metadata"]["name"] for pod in await kube.pods()}

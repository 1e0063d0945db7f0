"""Random pods are killed, one of each role at the same time: nothing is lost, duplicated, or out of order."""

import asyncio
import random
import time

from tests.cluster.figures import record
from tests.cluster.kube import Kube
from tests.cluster.traffic import Traffic
from tests.support.eventually import eventually

ROUNDS = 4
ROLES = ("api", "consumer", "relay", "scheduler", "worker")


async def test_twenty_pods_are_killed_at_random(kube: Kube, traffic: Traffic, seed: int) -> None:
    dice = random.Random(f"{seed}/kills")
    started = time.monotonic()
    async with traffic.flowing() as counted:
        for _ in range(ROUNDS):
            pods = {dice.choice(await kube.pods(f"muster/role={role}"))["metadata"]["name"] for role in ROLES}
            print(f"killing {', '.join(sorted(pods))}")
            await asyncio.gather(*(kube.delete_pod(pod, grace=0) for pod in pods))
            await eventually(lambda: kube.are_gone(*pods), timeout=60)  # noqa: B023 - awaited in turn
            await kube.rolled_out()
    killed = ROUNDS * len(ROLES)
    record(f"{killed} pods killed, one of each role at once", f"{time.monotonic() - started:.0f} s, {counted}")

"""Consumers are scaled up and down by the runbook, and Helm takes their number back."""

import time
from pathlib import Path

from muster_contracts import SERVICES
from tests.cluster.conftest import Ready
from tests.cluster.figures import record
from tests.cluster.kube import MUSTER, Kube
from tests.cluster.release import values
from tests.cluster.runbooks import PAGES, Desk
from tests.cluster.traffic import Traffic

OTHERS = [service for service in SERVICES if service != "notify"]


async def test_consumers_are_scaled_from_one_to_four_to_two(
    kube: Kube, installed: Ready, traffic: Traffic, tmp_path: Path
) -> None:
    desk = Desk(tmp_path, values(installed.servers))
    by_hand, by_helm, look = PAGES["runbooks/scaling.md"]
    steps = []
    async with traffic.flowing() as counted:
        for replicas in (1, 4):
            started = time.monotonic()
            if replicas == 4:  # notify's alone, by the page
                assert "successfully rolled out" in await desk.run(by_hand)
                assert await _ready(desk, look) == {"notify": "4/4", **dict.fromkeys(OTHERS, "1/1")}
            await kube.kubectl(
                "-n", MUSTER, "scale", "deployment", "-l", "muster/role=consumer", f"--replicas={replicas}"
            )
            await kube.rolled_out()
            steps.append(f"to {replicas} in {time.monotonic() - started:.0f} s")
        await desk.run(by_helm)
        await kube.rolled_out()
        assert await _ready(desk, look) == {"notify": "3/3", **dict.fromkeys(OTHERS, "2/2")}
    record("consumers scaled", f"{', '.join(steps)}, {counted}")
    assert counted.failures == []


async def _ready(desk: Desk, look: str) -> dict[str, str]:
    """The ready consumers of each service, as the page's last command prints them."""
    lines = [line.split() for line in (await desk.run(look)).splitlines()]
    names = {f"muster-{service}-consumer": service for service in SERVICES}
    return {names[name]: ready for name, ready, *_ in lines if name in names}

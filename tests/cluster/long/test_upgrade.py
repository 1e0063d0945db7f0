"""An upgrade under traffic to a next release with a migration, a rollback, and the upgrade again."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.cluster import next_release
from tests.cluster.conftest import Ready
from tests.cluster.figures import record
from tests.cluster.kube import ROOT, SCRIPT, Kube, command
from tests.cluster.release import Release, values
from tests.cluster.traffic import Traffic


async def test_an_upgrade_a_rollback_and_an_upgrade(
    kube: Kube, installed: Ready, traffic: Traffic, tmp_path: Path
) -> None:
    for image in ("services", "operator"):
        made = tmp_path / f"{image}.tar"
        next_release.make(ROOT / "build" / "images" / f"{image}.tar", made)
        await command(str(SCRIPT), "load-image", str(made))
    release, tag = Release(kube), {"tag": next_release.VERSION}
    upgraded = values(installed.servers, image={"services": tag, "operator": tag})

    async def upgrade() -> None:
        await release.upgrade(upgraded)

    steps: dict[str, Callable[[], Awaitable[None]]] = {
        "upgrade": upgrade,
        "rollback": release.roll_back,
        "upgrade again": upgrade,
    }
    for step, take in steps.items():
        async with traffic.flowing() as counted:
            started = time.monotonic()
            await take()
            await kube.rolled_out()
            seconds = time.monotonic() - started
        record(step, f"{seconds:.0f} s, {counted}")
        assert counted.failures == []

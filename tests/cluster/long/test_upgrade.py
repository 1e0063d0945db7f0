"""By the runbooks, traffic survives an upgrade with a migration, a rollback, and another upgrade: no request fails."""

import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.cluster import next_release
from tests.cluster.conftest import Ready
from tests.cluster.figures import record
from tests.cluster.kube import ROOT, SCRIPT, Kube, command
from tests.cluster.release import values
from tests.cluster.runbooks import PAGES, TEST, Desk
from tests.cluster.traffic import Traffic

VERSION = "0.1.0"


async def test_an_upgrade_a_rollback_and_an_upgrade(
    kube: Kube, installed: Ready, traffic: Traffic, tmp_path: Path
) -> None:
    for image in ("services", "operator"):
        made = tmp_path / f"{image}.tar"
        next_release.make(ROOT / "build" / "images" / f"{image}.tar", made)
        await command(str(SCRIPT), "load-image", str(made))
    tag = {"tag": next_release.VERSION}
    desk = Desk(tmp_path, values(installed.servers, image={"services": tag, "operator": tag}))
    history = json.loads(await desk.run("helm history muster --namespace muster --output json"))
    before = await _images(kube)

    async def follow(page: str, **variables: str) -> str:
        """Run a page's commands, and return what they print. Its `helm test` comes later, without the traffic."""
        return "".join([await desk.run(block.replace(TEST, ""), **variables) for block in PAGES[page]])

    async def upgrade() -> None:
        await follow("runbooks/upgrade.md")
        assert {image.rpartition(":")[2] for image in await _images(kube)} == {next_release.VERSION}

    async def roll_back() -> None:
        said = await follow("runbooks/rollback.md", VERSION=VERSION, REVISION=str(history[-1]["revision"]))
        assert "which is harmless" in said, said  # the migration stays
        assert await _images(kube) == before

    steps: dict[str, Callable[[], Awaitable[None]]] = {
        "an upgrade": upgrade,
        "a rollback": roll_back,
        "the upgrade again": upgrade,
    }
    for step, take in steps.items():
        async with traffic.flowing() as counted:
            started = time.monotonic()
            await take()
            await kube.rolled_out()
            seconds = time.monotonic() - started
        record(step, f"{seconds:.0f} s, {counted}")
        assert counted.failures == []
        tested = await desk.run(TEST)
        assert "PASSED" in tested or "Succeeded" in tested, tested


async def _images(kube: Kube) -> set[str]:
    """The images of the release's Deployments."""
    return {
        container["image"]
        for deployment in await kube.deployments()
        for container in deployment["spec"]["template"]["spec"]["containers"]
    }

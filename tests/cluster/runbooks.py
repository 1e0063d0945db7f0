"""The runbooks' commands for Kubernetes, run verbatim with Helm's and Kubernetes' own commands."""

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from infra.chart.generate import README
from tests.chart.helm_versions import VERSIONS, program_of
from tests.cluster.kube import HOME, KUBECONFIG, ROOT, CommandFailed, command
from tests.cluster.servers import Servers
from tests.support.eventually import eventually

RUNBOOKS = ROOT / "infra" / "runbooks"
HELM = program_of(ROOT / "build", VERSIONS[-1])

_HELM = 'helm() { "$HELM" "$@"; }'

_BLOCK = re.compile(r"^ *```sh kubernetes\n(.*?)^ *```", flags=re.M | re.S)


def blocks_of(page: Path) -> Sequence[str]:
    """The page's blocks of commands for Kubernetes, in order."""
    return _BLOCK.findall(page.read_text("utf-8"))


PAGES: Mapping[str, Sequence[str]] = {
    str(page.relative_to(ROOT / "infra")): blocks
    for page in (README, *sorted(RUNBOOKS.glob("*.md")))
    if (blocks := blocks_of(page))
}

# The command that ends an install, an upgrade, and a rollback.
TEST = PAGES["runbooks/upgrade.md"][-1].strip()


async def find_nothing(servers: Servers, home: Path) -> None:
    """Run the operator's own checks, with `home` as the command's folder. Raises CommandFailed if one does not pass."""
    muster, environment = str(ROOT / ".venv" / "bin" / "muster"), servers.operator(home)
    print(await command(muster, "streams", "check", environment=environment))
    print(await command(muster, "reconcile", "--settle", "10", environment=environment))


async def release_deadlines(servers: Servers, home: Path, *services: str) -> None:
    """Release the deadlines of services whose epoch was raised, as the pages end. Raises CommandFailed."""
    muster, environment = str(ROOT / ".venv" / "bin" / "muster"), servers.operator(home)

    async def release(service: str) -> bool:
        """Whether the service lets them go: it refuses until its relay has compared the topics with the database."""
        try:
            said = await command(
                muster, "deadlines", "release", service, "--reason", "restored", environment=environment
            )
        except CommandFailed:
            return False
        assert "its deadlines are released" in said, said
        return True

    for service in services:
        await eventually(partial(release, service), timeout=60)


class Desk:
    """An operator's working folder, with `values.yaml` and the commands that the pages use.

    It has the repository's chart, unless the folder has one.
    """

    def __init__(self, folder: Path, values: Mapping[str, Any]) -> None:
        self.folder = folder
        if not (folder / "infra").exists():
            (folder / "infra").symlink_to(ROOT / "infra")
        self.write(values)

    def write(self, values: Mapping[str, Any]) -> None:
        """Replace `values.yaml`."""
        (self.folder / "values.yaml").write_text(yaml.safe_dump(dict(values)), "utf-8")

    async def run(self, script: str, **variables: str) -> str:
        """Run commands in the folder; return their output. Raises CommandFailed."""
        path = os.pathsep.join([str(HOME / "bin"), os.environ["PATH"]])
        environment = {"KUBECONFIG": str(KUBECONFIG), "PATH": path, "HELM": str(HELM), **variables}
        prepared = f"set -euo pipefail; cd {self.folder}\n{_HELM}\n{script}"
        return await command("bash", "-c", prepared, environment=environment)

    async def follow(self, page: str, **variables: str) -> Sequence[str]:
        """Run the page's blocks one after another; return the output of each. Raises CommandFailed."""
        return [await self.run(block, **variables) for block in PAGES[f"runbooks/{page}"]]

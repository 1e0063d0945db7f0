"""The images as a strict cluster runs them: any user, a read-only root, no privileges, no network."""

import re
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import helm_python
import pytest

from infra.images.bundle import bundle
from muster_contracts import SERVICES
from tests.chart.rendering import LEAST, NAMESPACE, RELEASE
from tests.images.conftest import Docker

RESTRICTED = ["run", "--rm", "--read-only", "--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges"]

# OpenShift picks a user, in group 0.
USER = ["--user=1000730000:0", "--tmpfs=/tmp:rw,mode=1777"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_starts_as_any_user_on_a_read_only_root(
    service: str, docker: Docker, loaded: Callable[[str], str]
) -> None:
    helped = docker(*RESTRICTED, *USER, loaded("services"), f"muster_{service}", "--help")
    assert helped.returncode == 0, helped.stderr
    assert {"serve", "migrate"} <= set(helped.stdout.split())
    refused = docker(*RESTRICTED, *USER, loaded("services"), f"muster_{service}", "serve")
    assert refused.returncode == 2
    assert "MUSTER_" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_operators_image_has_the_command_dbmate_and_the_services(
    docker: Docker, loaded: Callable[[str], str]
) -> None:
    image = loaded("operator")
    assert docker(*RESTRICTED, *USER, image, "muster_operator", "--version").stdout.startswith("muster ")
    command = docker(*RESTRICTED, *USER, "--entrypoint=/opt/muster/bin/muster", image, "--help")
    assert command.returncode == 0, command.stderr
    assert "topics" in command.stdout.split()
    migrated = docker(*RESTRICTED, *USER, "--entrypoint=/opt/muster/bin/dbmate", image, "--version")
    assert migrated.stdout.startswith("dbmate version")


def test_there_is_no_shell(docker: Docker, loaded: Callable[[str], str]) -> None:
    refused = docker(*RESTRICTED, "--entrypoint=/bin/sh", loaded("operator"), "-c", "true")
    assert refused.returncode == 127
    assert "no such file or directory" in refused.stderr


def test_the_engine_has_what_the_lock_names(loaded: Callable[[str], str], locked: Mapping[str, Any]) -> None:
    assert {name: loaded(name) for name in locked} == {name: image["id"] for name, image in locked.items()}


def test_the_bundle_is_complete_and_installs_from_nothing_else(
    tmp_path: Path, docker: Docker, locked: Mapping[str, Any]
) -> None:
    with tarfile.open(bundle()) as tar:
        tar.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    checked = subprocess.run(["/usr/bin/sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=False)
    assert checked.returncode == 0
    listed = {line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text("utf-8").splitlines()}
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert listed == found - {"SHA256SUMS"}
    for archive in sorted((folder / "images").glob("*.tar")):
        done = docker("load", "--input", str(archive))
        assert done.stdout.strip() == f"Loaded image: {locked[archive.stem]['reference']}", done.stderr
    (chart,) = folder.glob("muster-*.tgz")
    rendered = "\n".join(helm_python.Chart.load(chart).render(dict(LEAST), name=RELEASE, namespace=NAMESPACE).values())
    used = set(re.findall(r"^ *image: (\S+)$", rendered, flags=re.MULTILINE))
    assert used == {locked[archive.stem]["reference"] for archive in (folder / "images").glob("*.tar")}
    (folder / "images/services.tar").open("r+b").write(b"changed")
    changed = subprocess.run(["/usr/bin/sha256sum", "--check", "--status", "SHA256SUMS"], cwd=folder, check=False)
    assert changed.returncode == 1

"""The sandbox with MUSTER_STACK=docker, on a real engine: its Postgres and its Kafka are containers."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from muster_local.docker import IMAGE
from tests.images.conftest import Docker


@pytest.fixture
def muster(engine: str, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """`muster("up")`: the command, with the test's own home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    environment = kept | {"MUSTER_STACK": "docker", "DOCKER_HOST": engine, "MUSTER_HOME": str(tmp_path / "home")}
    program = str(Path(sys.executable).with_name("muster"))

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, check=False)

    return run


def test_the_demo_year_balances_on_containers(
    muster: Callable[..., "subprocess.CompletedProcess[str]"], docker: Docker, loaded: Callable[[str], str]
) -> None:
    docker("image", "rm", "--force", IMAGE)
    refused = muster("up")
    assert refused.returncode == 1
    assert f"the engine has no image {IMAGE}: make images, then docker load" in refused.stderr

    loaded("test-servers")
    assert muster("up").returncode == 0
    listed = docker("ps", "--format", "{{.Image}} {{.Ports}}").stdout.splitlines()
    assert len(listed) == 2
    assert all(line.startswith(f"{IMAGE} 127.0.0.1:") for line in listed)
    assert muster("agency", "list").returncode == 0
    assert muster("down").returncode == 0
    assert docker("ps", "--all", "--quiet").stdout == ""

    demo = muster("demo", "--seats", "500")
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert docker("ps", "--all", "--quiet").stdout == ""

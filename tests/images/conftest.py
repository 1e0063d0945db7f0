"""The images that `make images` has built, and the tests' own Docker engine."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.client import DockerClient
from docker.errors import DockerException

from infra.images.build import LOCK, OUTPUT
from infra.images.contents import Contents
from tests.support.eventually import eventually

Docker = Callable[..., "subprocess.CompletedProcess[str]"]

BRIDGE = "docker0"


@pytest.fixture(scope="session")
def locked() -> dict[str, Any]:
    """Each image's entry in images.lock, by name."""
    images: dict[str, Any] = json.loads(LOCK.read_text("utf-8"))["images"]
    return images


@pytest.fixture(scope="session")
def contents() -> Callable[[str], Contents]:
    """`contents("services")`: the contents of that image."""
    return lambda name: Contents(OUTPUT / f"{name}.tar")


@pytest.fixture(scope="session")
def engine() -> Iterator[str]:
    """The address of a Docker engine without images, which does not change the machine's firewall."""
    folder = Path(tempfile.mkdtemp(prefix="muster-docker-"))
    address = f"unix://{folder}/docker.sock"
    had_bridge = _has_bridge()
    options = ["--iptables=false", "--ip-masq=false", "--ip-forward=false", "--log-level=warn"]
    places = [f"--data-root={folder}/data", f"--exec-root={folder}/run", f"--pidfile={folder}/pid", f"--host={address}"]
    program = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, "make images-test installs it"
    with (folder / "log").open("w") as log:
        daemon = subprocess.Popen([program, *places, *options], stdout=log, stderr=subprocess.STDOUT)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", address)
            asyncio.run(eventually(lambda: _answers(daemon, folder / "log"), timeout=60))
            yield address
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
        shutil.rmtree(folder, ignore_errors=True)
        if not had_bridge and _has_bridge():
            subprocess.run(["/usr/sbin/ip", "link", "delete", BRIDGE], check=True)


@pytest.fixture(scope="session")
def docker(engine: str) -> Docker:
    """`docker("run", …)`: the Docker client, on the tests' engine."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = ["docker", "--host", engine, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    return run


@pytest.fixture(scope="session")
def loaded(docker: Docker) -> Callable[[str], str]:
    """`loaded("services")`: the ID of that image, loaded into the engine."""

    def load(name: str) -> str:
        done = docker("load", "--input", str(OUTPUT / f"{name}.tar"))
        assert done.returncode == 0, done.stderr
        reference = done.stdout.strip().removeprefix("Loaded image: ")
        return docker("image", "inspect", "--format", "{{.Id}}", reference).stdout.strip()

    return load


def _has_bridge() -> bool:
    return Path(f"/sys/class/net/{BRIDGE}").exists()


def _answers(daemon: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert daemon.poll() is None, log.read_text("utf-8")
    try:
        return bool(DockerClient.from_env().ping())
    except DockerException:
        return False

"""With MUSTER_STACK=docker: Postgres and Kafka in containers, from the image that `make images` builds."""

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from docker.client import DockerClient
from docker.errors import DockerException, ImageNotFound, NotFound
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from muster_local.container import POSTGRES_PORT
from muster_local.home import draw_port
from muster_local.kafka import LOOPBACK

IMAGE = f"muster/test-servers:{version('muster-local')}"


class DockerUnusable(Exception):
    """No Docker engine answers, or it lacks the image; the message says what to do."""


@contextmanager
def postgres_in_container(home: Path) -> Iterator[str]:
    """Run Postgres and yield the superuser's DSN; its data is deleted with the container."""
    port, password = draw_port(set()), secrets.token_hex(24)
    with _running(home, "postgres", [], {"POSTGRES_PASSWORD": password}, {POSTGRES_PORT: port}):
        yield f"postgresql://postgres:{password}@{LOOPBACK}:{port}/postgres?sslmode=disable"


@contextmanager
def kafka_in_container(home: Path) -> Iterator[str]:
    """Run Kafka and yield its address; its data is deleted with the container."""
    # The same port inside and outside: a broker connects to itself at its advertised address.
    port = draw_port(set())
    arguments = ["--advertised", f"{LOOPBACK}:{port}", "--port", str(port)]
    with _running(home, "kafka", arguments, {}, {port: port}):
        yield f"{LOOPBACK}:{port}"


@contextmanager
def _running(
    home: Path, server: str, arguments: Sequence[str], environment: Mapping[str, str], ports: Mapping[int, int]
) -> Iterator[None]:
    """Run a server in a container named for the home; it replaces one that a killed supervisor left behind."""
    name = f"muster-{hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:8]}-{server}"
    _prepare(name)
    # Ryuk, testcontainers' cleanup container, needs its own image, which may not be present.
    testcontainers_config.ryuk_disabled = True
    container = DockerContainer(
        IMAGE, name=name, env=dict(environment), cap_drop=["ALL"], security_opt=["no-new-privileges"]
    )
    container.with_command(["muster_local.container", server, *arguments])
    for inside, outside in ports.items():
        # On the loopback address only: Kafka authenticates nobody.
        cast("dict[str, Any]", container.ports)[f"{inside}/tcp"] = (LOOPBACK, outside)
    with ExitStack() as stack:
        stack.callback(container.stop)
        container.start()
        yield


def _prepare(name: str) -> None:
    try:
        client = DockerClient.from_env()
        client.images.get(IMAGE)  # never pull an image with this name
        client.containers.get(name).remove(force=True, v=True)
    except NotFound as missing:
        if isinstance(missing, ImageNotFound):
            how = "make images, then docker load --input build/images/test-servers.tar"
            raise DockerUnusable(f"MUSTER_STACK=docker: the engine has no image {IMAGE}: {how}") from None
    except DockerException as error:
        raise DockerUnusable(f"MUSTER_STACK=docker: no Docker engine answers: {error}") from None

"""The stack's Postgres and Kafka: embedded ones, those that the environment names, or containers."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from muster_local.child import Program
from muster_local.home import PROVIDER, Installation
from muster_local.kafka import Kafka
from muster_local.kafka_security import KafkaSecurity
from muster_local.postgres import Postgres, PostgresSecurity

if TYPE_CHECKING:
    from muster_runtime.messaging.connection import KafkaConnection

POSTGRES, KAFKA, CONTROLLER = "postgres", "kafka", "kafka-controller"

# Where a secured broker takes certificates; by it, it reaches itself.
CERTIFICATES = "kafka-certificates"

POSTGRES_DSN, KAFKA_BOOTSTRAP = "MUSTER_POSTGRES_DSN", "MUSTER_KAFKA_BOOTSTRAP"


def external_postgres() -> str | None:
    """The superuser's address of the Postgres that the environment names."""
    return os.environ.get(POSTGRES_DSN) or None


def external_kafka() -> str | None:
    """The address of the Kafka that the environment names."""
    return os.environ.get(KAFKA_BOOTSTRAP) or None


def external_kafka_settings() -> dict[str, str]:
    """How the Kafka that the environment names is reached: its variables, for the services' processes."""
    if external_kafka() is None:
        return {}
    return {name: value for name, value in os.environ.items() if name.startswith("MUSTER_KAFKA_")}


def kafka_at(bootstrap: str) -> "KafkaConnection":
    """How a stack's Kafka is reached: the environment's with the environment's credentials, an embedded one without."""
    # Most commands ask no broker, and its client takes long to load.
    from muster_runtime.kafka_settings import KafkaSettings
    from muster_runtime.messaging.connection import KafkaConnection

    if external_kafka() is None:
        return KafkaConnection.plain(bootstrap)
    return KafkaConnection(KafkaSettings(kafka_bootstrap=bootstrap))


def secured_listeners() -> list[str]:
    """What the servers of a secured stack listen as; each needs a port."""
    return [POSTGRES, KAFKA, CONTROLLER, CERTIFICATES, PROVIDER]


def embedded_listeners() -> list[str]:
    """What the embedded servers listen as; each needs a port."""
    postgres = [] if external_postgres() else [POSTGRES]
    kafka = [] if external_kafka() else [KAFKA, CONTROLLER]
    return postgres + kafka


def embedded_postgres(folder: Path, installation: Installation, security: PostgresSecurity | None = None) -> Program:
    """An embedded Postgres, ready to be run."""
    port, password = installation.ports[POSTGRES], installation.postgres_password
    server = Postgres(folder / POSTGRES, port, password, security=security)
    server.prepare()
    # SIGINT is Postgres' fast shutdown: it does not wait for clients to leave.
    return Program(POSTGRES, server.command(), server.dsn, stop_signal=signal.SIGINT, user=server.user)


def embedded_kafka(folder: Path, installation: Installation, security: KafkaSecurity | None = None) -> Program:
    """An embedded Kafka, ready to be run."""
    broker = Kafka(folder / KAFKA, installation.ports[KAFKA], installation.ports[CONTROLLER], security=security)
    broker.prepare()
    return Program(KAFKA, broker.command(), broker.bootstrap)


@contextmanager
def containers(home: Path) -> Iterator[None]:
    """With MUSTER_STACK=docker: the missing servers in containers, which the environment names meanwhile.

    Raises DockerUnusable.
    """
    if os.environ.get("MUSTER_STACK") != "docker":
        yield
        return
    # Its client takes long to load.
    from muster_local.docker import kafka_in_container, postgres_in_container

    with ExitStack() as stack:
        if external_postgres() is None:
            os.environ[POSTGRES_DSN] = stack.enter_context(postgres_in_container(home))
        if external_kafka() is None:
            os.environ[KAFKA_BOOTSTRAP] = stack.enter_context(kafka_in_container(home))
        yield

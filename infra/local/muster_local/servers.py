"""The stack's Postgres and Kafka: embedded, named by the environment, or in containers."""

import os
import signal
from collections.abc import Iterator, Sequence
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

# A secured broker's listener for clients with certificates, and for the broker's connections to itself.
CERTIFICATES = "kafka-certificates"

POSTGRES_DSN, KAFKA_BOOTSTRAP = "MUSTER_POSTGRES_DSN", "MUSTER_KAFKA_BOOTSTRAP"


def external_postgres() -> str | None:
    """The superuser's DSN of the Postgres that the environment names."""
    return os.environ.get(POSTGRES_DSN) or None


def external_kafka() -> str | None:
    """The address of the Kafka that the environment names."""
    return os.environ.get(KAFKA_BOOTSTRAP) or None


def external_kafka_settings() -> dict[str, str]:
    """The environment's MUSTER_KAFKA_ variables, for the services; empty if it names no Kafka."""
    if external_kafka() is None:
        return {}
    return {name: value for name, value in os.environ.items() if name.startswith("MUSTER_KAFKA_")}


def kafka_at(bootstrap: str) -> "KafkaConnection":
    """The connection to a stack's Kafka: with the environment's credentials if it names a Kafka, otherwise without."""
    # Imported late: most commands need no broker, and its client is slow to load.
    from muster_runtime.kafka_settings import KafkaSettings
    from muster_runtime.messaging.connection import KafkaConnection

    if external_kafka() is None:
        return KafkaConnection.plain(bootstrap)
    return KafkaConnection(KafkaSettings(kafka_bootstrap=bootstrap))


def secured_listeners() -> list[str]:
    """The names of a secured stack's listeners; each needs a port."""
    return [POSTGRES, KAFKA, CONTROLLER, CERTIFICATES, PROVIDER]


def embedded_listeners() -> list[str]:
    """The names of the embedded servers' listeners; each needs a port."""
    postgres = [] if external_postgres() else [POSTGRES]
    kafka = [] if external_kafka() else [KAFKA, CONTROLLER]
    return postgres + kafka


def embedded_postgres(folder: Path, installation: Installation, security: PostgresSecurity | None = None) -> Program:
    """An embedded Postgres, prepared to run. Raises InitdbFailed."""
    port, password = installation.ports[POSTGRES], installation.postgres_password
    server = Postgres(folder / POSTGRES, port, password, security=security)
    server.prepare()
    # SIGINT is Postgres's fast shutdown: it does not wait for clients to disconnect.
    return Program(POSTGRES, server.command(), server.dsn, stop_signal=signal.SIGINT, user=server.user)


def embedded_kafka(
    folder: Path, installation: Installation, services: Sequence[str], security: KafkaSecurity | None = None
) -> Program:
    """An embedded Kafka for these services, prepared to run; without services, it is tuned for sustained load.

    Raises KafkaFormatFailed.
    """
    ports = installation.ports
    broker = Kafka(folder / KAFKA, ports[KAFKA], ports[CONTROLLER], security=security, quick_start=bool(services))
    broker.prepare()
    return Program(KAFKA, broker.command(), broker.bootstrap)


@contextmanager
def containers(home: Path) -> Iterator[None]:
    """With MUSTER_STACK=docker, run the servers that the environment does not name in containers, and name them in it.

    Raises DockerUnusable.
    """
    if os.environ.get("MUSTER_STACK") != "docker":
        yield
        return
    # Imported late: its client is slow to load.
    from muster_local.docker import kafka_in_container, postgres_in_container

    with ExitStack() as stack:
        if external_postgres() is None:
            os.environ[POSTGRES_DSN] = stack.enter_context(postgres_in_container(home))
        if external_kafka() is None:
            os.environ[KAFKA_BOOTSTRAP] = stack.enter_context(kafka_in_container(home))
        yield

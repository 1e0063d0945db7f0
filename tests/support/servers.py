"""The servers that the tests use: those of the environment, or embedded ones of this run's own."""

import os
from dataclasses import dataclass

POSTGRES = "MUSTER_POSTGRES_DSN"
KAFKA = "MUSTER_KAFKA_BOOTSTRAP"


@dataclass(frozen=True)
class Servers:
    """Where they are."""

    postgres_dsn: str
    kafka_bootstrap: str


def start() -> Servers:
    """The servers, started if need be. Their addresses go into the environment, for child processes."""
    return Servers(os.environ[POSTGRES], os.environ[KAFKA])


def stop() -> None:
    """Stop what `start` has started."""

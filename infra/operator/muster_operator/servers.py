"""Finds the servers of a sandbox's stack, through the package that runs stacks, if it is installed.

That package registers a function `find(home) -> Servers | None` as an entry point in the group `muster.servers`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

GROUP = "muster.servers"


@dataclass(frozen=True)
class Servers:
    """The addresses of a running stack's services, Postgres (as superuser), and Kafka.

    `token` issues a bearer token for scopes and all agencies. `settings_of` returns the environment for a service's own
    commands. `kafka` contains fields of KafkaSettings, by name.
    """

    urls: Mapping[str, str]
    token: Callable[..., str]
    settings_of: Callable[[str], Mapping[str, str]]
    admin_dsn: str
    kafka: Mapping[str, str]
    topic_prefix: str


def stacks_are_known() -> bool:
    """Whether a package that runs stacks is installed."""
    return bool(entry_points(group=GROUP))


def of_stack(home: Path) -> Servers | None:
    """The servers of the stack in a home folder; None if none runs, or if no package that runs stacks is installed."""
    for entry in entry_points(group=GROUP):
        found: Servers | None = entry.load()(home)
        if found is not None:
            return found
    return None

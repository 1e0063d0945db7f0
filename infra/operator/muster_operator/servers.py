"""The servers of a sandbox's stack, found by the distribution that runs stacks, if it is installed.

That distribution registers a function `find(home) -> Servers | None` as an entry point of the group `muster.servers`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

GROUP = "muster.servers"


@dataclass(frozen=True)
class Servers:
    """Where a running stack's services, Postgres (as superuser) and Kafka are.

    `token` issues a bearer token for scopes; the token acts for all agencies. `settings_of` is the environment in which
    a service's own commands run; `kafka` are settings of KafkaSettings, by name.
    """

    urls: Mapping[str, str]
    token: Callable[..., str]
    settings_of: Callable[[str], Mapping[str, str]]
    admin_dsn: str
    kafka: Mapping[str, str]
    topic_prefix: str


def stacks_are_known() -> bool:
    """Whether a distribution that runs stacks is installed."""
    return bool(entry_points(group=GROUP))


def of_stack(home: Path) -> Servers | None:
    """The servers of the stack in a home folder; None if none runs, or if nothing that runs stacks is installed."""
    for entry in entry_points(group=GROUP):
        found: Servers | None = entry.load()(home)
        if found is not None:
            return found
    return None

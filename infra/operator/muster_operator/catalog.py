"""The commands of each installed distribution, listed without importing any.

A distribution names its catalog as an entry point of the group `muster.commands`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points

GROUP = "muster.commands"


@dataclass(frozen=True, slots=True)
class Command:
    """A command of `muster`.

    `target` is a module's typer app or command function, such as `muster_operator.parked:app`; it is imported when
    the command is invoked. The help shows `summary`.
    """

    name: str
    target: str
    summary: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """The commands of one distribution, and their title in the help."""

    title: str
    commands: tuple[Command, ...]


def installed() -> Iterator[Catalog]:
    """The catalogs of every installed distribution, by the names of their entry points."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        yield entry.load()

"""Which commands there are, told without importing any: a catalog for each installed distribution.

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
    the command is invoked. `summary` stands in the help.
    """

    name: str
    target: str
    summary: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """The commands of one distribution, under a title of their own in the help."""

    title: str
    commands: tuple[Command, ...]


def installed() -> Iterator[Catalog]:
    """The catalogs of every installed distribution, by the names of their entry points."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        yield entry.load()

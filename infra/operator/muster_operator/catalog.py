"""Lists the commands of each installed package without importing them.

A package registers its catalog as an entry point in the group `muster.commands`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points

GROUP = "muster.commands"


@dataclass(frozen=True, slots=True)
class Command:
    """A command of `muster`.

    `target` is a module's typer app or command function, such as `muster_operator.parked:app`, which is imported when
    the command is invoked. The help shows `summary`.
    """

    name: str
    target: str
    summary: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """The commands of one package, and their title in the help."""

    title: str
    commands: tuple[Command, ...]


def installed() -> Iterator[Catalog]:
    """The catalog of every installed package, sorted by the name of its entry point."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        yield entry.load()

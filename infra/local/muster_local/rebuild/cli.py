"""The command: it chooses the projection by its name."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from muster_local.rebuild.directory import Directory
from muster_local.rebuild.projection import Difference, Projection
from muster_local.rebuild.seats import SeatsInUse
from muster_local.stack import DEFAULT_HOME
from muster_local.target import HomeOption, Target, console, run


class Name(StrEnum):
    """The projections that can be rebuilt."""

    NOTIFY_DIRECTORY = "notify.directory"
    ENTITLEMENTS_SEATS_IN_USE = "entitlements.seats-in-use"


_PROJECTIONS: Mapping[Name, Callable[[Target], AbstractAsyncContextManager[Projection]]] = {
    Name.NOTIFY_DIRECTORY: Directory.open,
    Name.ENTITLEMENTS_SEATS_IN_USE: SeatsInUse.open,
}


@dataclass(frozen=True)
class Outcome:
    """What was read, and how the live projection differed."""

    records: int
    unread: int
    differences: list[Difference]


def rebuild(
    projection: Annotated[Name, typer.Argument(help="The projection to rebuild.")],
    swap: Annotated[bool, typer.Option("--swap", help="Replace the live projection.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="The reason for --swap; the audit trail keeps it.")] = "",
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Rebuild a projection from the topics and compare it with the live one; with --swap, replace that.

    The exit status is 1 if they differ and not every difference was swapped.
    """
    if swap and not reason:
        raise typer.BadParameter("--swap needs a --reason")
    target = Target.find(home).require("admin_dsn", "bootstrap")
    outcome = run(_rebuild(target, projection, reason if swap else None))
    console.print(f"{outcome.records:,} records on the topics; {outcome.unread} could not be read")
    if not outcome.differences:
        console.print("The projection is correct.")
        return
    table = Table("agency", projection.value, "why it cannot be corrected", box=None, pad_edge=False)
    for each in outcome.differences:
        table.add_row(each.key, escape(each.found), escape(each.obstacle))
    console.print(table)
    stands = sum(1 for each in outcome.differences if each.obstacle) if swap else len(outcome.differences)
    if stands:
        console.print(f"[red]{stands} differences remain[/red]")
        raise typer.Exit(1)
    console.print("The rebuilt projection is in place.")


async def _rebuild(target: Target, name: Name, reason: str | None) -> Outcome:
    async with _PROJECTIONS[name](target) as projection:
        await projection.replay()
        differences = await (projection.compare() if reason is None else projection.swap(reason))
        return Outcome(projection.records, projection.unread, list(differences))

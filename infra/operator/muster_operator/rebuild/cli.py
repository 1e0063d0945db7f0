"""The command: it chooses the projection by its name."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Group
from rich.markup import escape

from muster_operator.clients import clients_of_servers
from muster_operator.failures import BadInput
from muster_operator.output import Answer, table
from muster_operator.rebuild.directory import Directory
from muster_operator.rebuild.projection import Difference, Projection
from muster_operator.rebuild.seats import SeatsInUse
from muster_operator.target import Target, on_target


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


@on_target(asks=False)
async def rebuild(
    target: Target,
    projection: Annotated[Name, typer.Argument(help="The projection to rebuild.")],
    swap: Annotated[bool, typer.Option("--swap", help="Replace the live projection.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="The reason for --swap; the audit trail keeps it.")] = "",
) -> Answer:
    """Rebuild a projection from the topics and compare it with the live one; with --swap, replace that.

    The exit status is 1 if they differ and not every difference was swapped.
    """
    if swap and not reason:
        raise BadInput("--swap needs a --reason")
    target.require("admin_dsn", "bootstrap")
    async with clients_of_servers():
        outcome = await _rebuild(target, projection, reason if swap else None)
    remain = [each for each in outcome.differences if each.obstacle] if swap else outcome.differences
    data = {
        "projection": projection.value,
        "records": outcome.records,
        "unread": outcome.unread,
        "differences": [asdict(each) for each in outcome.differences],
        "swapped": len(outcome.differences) - len(remain),
    }
    read = f"{outcome.records:,} records on the topics; {outcome.unread} could not be read"
    if not outcome.differences:
        return Answer(data, f"{read}\nThe projection is correct.")
    rows = [(each.key, escape(each.found), escape(each.obstacle)) for each in outcome.differences]
    shown = table(("agency", projection.value, "why it cannot be corrected"), rows)
    end = f"[red]{len(remain)} differences remain[/red]" if remain else "The rebuilt projection is in place."
    return Answer(data, Group(read, shown, end), ok=not remain)


async def _rebuild(target: Target, name: Name, reason: str | None) -> Outcome:
    async with _PROJECTIONS[name](target) as projection:
        await projection.replay()
        differences = await (projection.compare() if reason is None else projection.swap(reason))
        return Outcome(projection.records, projection.unread, list(differences))

"""The command: finds the paths that include an ID, and prints each as a tree."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.tree import Tree

from muster_operator.clients import clients_of_servers
from muster_operator.failures import BadInput
from muster_operator.output import Answer, in_utc
from muster_operator.target import Target, on_target
from muster_operator.trace.facts import Facts
from muster_operator.trace.search import search
from muster_operator.trace.tree import Node, elapsed, first_instant, grow

# How many children of one step are shown; --json has all.
SHOWN = 20


@on_target(asks=False)
async def trace(
    target: Target,
    id_: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="The ID of an event, a request, a correlation, a seat, an invoice, a delivery, or anything else.",
        ),
    ],
    quiet: Annotated[
        float,
        typer.Option(min=0, help="Stop reading the topics after this many seconds without another event of the path."),
    ] = 60.0,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many paths, the latest.")] = 10,
) -> Answer:
    """Show the path of a change through all services: its commit, its events, their effects, and deliveries."""
    if not id_.strip():
        raise BadInput("the ID must not be empty")
    target.require("admin_dsn")
    async with clients_of_servers(target.kafka):
        facts = await search(target, id_, timedelta(seconds=quiet), limit)
    paths = [_path(facts, correlation_id) for correlation_id in sorted(facts.correlation_ids())]
    shown: list[RenderableType] = [tree for _, tree in paths]
    shown += [f"[yellow]not searched: {escape(each)}[/yellow]" for each in facts.unseen]
    return Answer({"id": id_, "paths": [data for data, _ in paths], "not_looked_at": facts.unseen}, Group(*shown))


def _path(facts: Facts, correlation_id: str) -> tuple[dict[str, Any], Tree]:
    roots = grow(facts.of(correlation_id))
    began = first_instant(roots)
    agencies = ", ".join(sorted(facts.of(correlation_id).agencies()))
    when = "" if began is None else f", {in_utc(began)}"
    tree = Tree(escape(f"{correlation_id}: {agencies}{when}"))
    _draw(tree, roots, began)
    data = {
        "correlation_id": correlation_id,
        "began_at": None if began is None else in_utc(began),
        "steps": [_as_json(node, began) for node in roots],
    }
    return data, tree


def _draw(tree: Tree, nodes: list[Node], began: datetime | None) -> None:
    for node in nodes[:SHOWN]:
        after = "" if node.at is None or began is None else f"  {elapsed(node.at - began)}"
        line = f"{node.service}: {node.text}{after}"
        _draw(tree.add(f"[yellow]{escape(line)}[/yellow]" if node.waits else escape(line)), node.children, began)
    if len(nodes) > SHOWN:
        tree.add(f"and {len(nodes) - SHOWN:,} more")


def _as_json(node: Node, began: datetime | None) -> dict[str, Any]:
    offset = None if node.at is None or began is None else round((node.at - began) / timedelta(milliseconds=1), 3)
    return {
        "kind": node.kind,
        "service": node.service,
        "at": None if node.at is None else in_utc(node.at),
        "offset_ms": offset,
        **_written(node.facts.items()),
        "led_to": [_as_json(child, began) for child in node.children],
    }


def _written(facts: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: in_utc(value) if isinstance(value, datetime) else value for name, value in facts}

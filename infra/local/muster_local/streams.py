"""`muster streams`: the position of every stream in every service; gaps, the epoch, and rereading after a restore."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from muster_contracts import topics as all_topics
from muster_local.check import check
from muster_local.parked import Agency, Reason, Topic, one, outcome
from muster_local.stack import DEFAULT_HOME
from muster_local.target import (
    HomeOption,
    Refused,
    Service,
    ServiceOption,
    Target,
    TokenOption,
    console,
    every_item,
    on_target,
    run,
)

app = typer.Typer(
    help="Show each stream's last sequence, produced and applied; accept gaps, raise the epoch, reread topics."
)
gap = typer.Typer(no_args_is_help=True, help="Sequences that are missing from a stream.")
epoch = typer.Typer(no_args_is_help=True, help="The epoch of a service's streams.")
app.add_typer(gap, name="gap")
app.add_typer(epoch, name="epoch")
app.command("check")(check)

Position = tuple[int, int]  # epoch, sequence
Restored = Annotated[str, typer.Argument(metavar="SERVICE", help="The service whose database was restored.")]


@app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    topic: Annotated[str | None, typer.Option(help="Show only this topic.")] = None,
    agency: Annotated[str | None, typer.Option(help="Show only this agency.")] = None,
    behind: Annotated[
        bool, typer.Option("--behind", help="Show only streams that a service has not fully applied.")
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    token: TokenOption = None,
) -> None:
    """Show each stream's last sequence: produced by its owner, and applied by each reader."""
    if context.invoked_subcommand is None:
        run(_show(Target.find(home, token), topic, agency, behind=behind))


async def _show(target: Target, topic: str | None, agency: str | None, *, behind: bool) -> None:
    query = {name: value for name, value in (("topic", topic), ("agency_id", agency)) if value is not None}
    async with target.services() as services:
        states = await _states(services, query)
    table = Table("topic", "agency", "produced", "applied", box=None, pad_edge=False)
    shown = 0
    for (name, agency_id), by_service in sorted(states.items()):
        description = all_topics()[name]
        produced = _position(by_service.get(description.owner, {}).get("produced"))
        applied = {s: _position(by_service.get(s, {}).get("applied")) for s in description.readers}
        if behind and all(_caught_up(position, produced) for position in applied.values()):
            continue
        shown += 1
        table.add_row(name, agency_id, _text(produced), _applied(by_service, applied, produced))
    console.print(table if shown else "No stream is behind." if behind else "There are no streams yet.")


@gap.command("accept")
@on_target
async def accept_gap(
    target: Target, topic: Topic, agency: Agency, reason: Reason, service: ServiceOption = None
) -> bool:
    """Accept the missing sequences that a parked stream waits for, and replay it. Their content stays unknown."""
    async with target.services(service) as services:
        stream = await one(services, topic, agency)
        waiting = (await stream.service.get(stream.path))["first_records"][0]["sequence"]
        if waiting is None:
            raise Refused(f"{stream} is not parked for a gap: {stream.facts['reason']}")
        shown = await stream.service.get("/v1/streams", topic=topic, agency_id=agency)
        applied = next((_position(state["applied"]) for state in shown["items"]), (0, 0))
        console.print(f"{stream}: sequence {waiting:,} waits; {_text(applied)} is applied", highlight=False)
        body = {"waiting": waiting, "reason": reason}
        state = await stream.service.post(f"/v1/streams/{topic}/{agency}/gap", body)
        console.print(f"{stream}: accepted up to {_text(_position(state['applied']))}", highlight=False)
        reply = await stream.service.post(f"{stream.path}/replay")
    console.print(outcome(reply, "replayed"), highlight=False)
    return not reply["parked"]


@epoch.command("raise")
@on_target
async def raise_epoch(target: Target, service: Restored, reason: Reason) -> None:
    """After a restore: continue every stream of the service in a new epoch. Run it with its operator routes only."""
    async with target.services() as services:
        own = {name for name, topic in all_topics().items() if topic.owner == service}
        others = {name: each for name, each in services.items() if name != service}
        seen = await _states(others, {})
        above = max(
            (
                _position(state["applied"])[0]
                for (topic, _), by_service in seen.items()
                for state in by_service.values()
                if topic in own
            ),
            default=0,
        )
        if service not in services:
            raise typer.BadParameter(f"{service}: must be one of {', '.join(services)}")
        raised = await services[service].post("/v1/epoch", {"reason": reason, "above": above})
    console.print(f"{service}: {raised['streams']} streams continue in epoch {raised['epoch']}", highlight=False)


@app.command()
@on_target
async def rewind(target: Target, service: Restored, reason: Reason) -> None:
    """Make a service read its topics from the beginning. It skips what it has applied.

    Run the service with its operator routes only: Kafka refuses while a process of the service consumes.
    """
    async with target.services(service) as services:
        rewound = await services[service].post("/v1/rewind", {"reason": reason})
    console.print(f"{service} reads from the beginning: {', '.join(rewound['topics'])}", highlight=False)


@app.command("pass")
@on_target
async def pass_record(
    target: Target,
    service: Annotated[str, typer.Argument(help="The service that is blocked by the record.")],
    topic: Topic,
    partition: Annotated[int, typer.Argument(min=0, help=r"As readiness names it: topic\[partition]@offset.")],
    offset: Annotated[int, typer.Argument(min=0)],
    reason: Reason,
    through: Annotated[
        int | None, typer.Option(min=0, help="The last offset, if more than this record is damaged.")
    ] = None,
) -> None:
    """Make a service skip a record that it cannot decode, or that another program wrote to its topic."""
    async with target.services(service) as services:
        body = {"offset": offset, "last_offset": through, "reason": reason}
        passed = await services[service].post(f"/v1/partitions/{topic}/{partition}/pass", body)
    first, last = passed["first_offset"], passed["last_offset"]
    what = f"offset {first}" if first == last else f"offsets {first} to {last}"
    console.print(f"{service} skips {topic}[{partition}], {what}", markup=False)


async def _states(
    services: Mapping[str, Service], query: Mapping[str, str]
) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """Each service's view of each stream."""
    states: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for service, item in await every_item(services, "/v1/streams", **query):
        states.setdefault((item["topic"], item["agency_id"]), {})[service.name] = item
    return states


def _position(shown: Mapping[str, int] | None) -> Position:
    return (0, 0) if shown is None else (shown["epoch"], shown["sequence"])


def _caught_up(applied: Position, produced: Position) -> bool:
    """Whether nothing is left to apply. A raised epoch shows in a reader with its first event."""
    return applied == produced or (applied[0] < produced[0] and applied[1] >= produced[1])


def _text(position: Position) -> str:
    epoch, sequence = position
    return "-" if not epoch else f"{sequence:,}" if epoch == 1 else f"{sequence:,} (epoch {epoch})"


def _applied(by_service: Mapping[str, Mapping[str, Any]], applied: Mapping[str, Position], produced: Position) -> str:
    def one_of(service: str, position: Position) -> str:
        text = f"{service} {_text(position)}"
        if by_service.get(service, {}).get("parked"):
            return f"[red]{text} parked[/red]"
        return text if _caught_up(position, produced) else f"[yellow]{text}[/yellow]"

    return ", ".join(one_of(service, position) for service, position in applied.items())

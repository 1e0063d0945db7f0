"""`muster parked`: parked streams, and the commands to replay or discard them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.table import Table

from muster_local.target import Refused, Service, ServiceOption, Target, console, every_item, on_target

app = typer.Typer(
    no_args_is_help=True,
    help="Show, replay, and discard parked streams: those with an event that could not be applied.",
)

Topic = Annotated[str, typer.Argument(help="The topic, such as muster.enrollment.agency.")]
Agency = Annotated[str, typer.Argument(help="The agency's ID.")]
Reason = Annotated[str, typer.Option("--reason", help="The reason; the audit trail keeps it.")]


@dataclass(frozen=True)
class Stream:
    """A parked stream and its service."""

    service: Service
    topic: str
    agency_id: str
    facts: dict[str, Any]

    @property
    def path(self) -> str:
        """Its path in the service."""
        return f"/v1/parked/{quote(self.topic, safe='')}/{quote(self.agency_id, safe='')}"

    def __str__(self) -> str:
        return f"{self.service.name}: {self.topic} of {self.agency_id}"


@app.command("list")
@on_target
async def list_(target: Target, service: ServiceOption = None) -> None:
    """List the parked streams: why, since when, and how many records wait."""
    async with target.services(service) as services:
        streams = await find(services)
    table = Table("service", "topic", "agency", "since", "records", "why", box=None, pad_edge=False)
    for stream in streams:
        table.add_row(
            stream.service.name,
            stream.topic,
            stream.agency_id,
            stream.facts["parked_at"],
            f"{stream.facts['records']:,}",
            escape(stream.facts["reason"]),
        )
    console.print(table if streams else "Nothing is parked.")


@app.command()
@on_target
async def show(target: Target, topic: Topic, agency: Agency, service: ServiceOption = None) -> None:
    """Show the error and the first raw records of a parked stream."""
    async with target.services(service) as services:
        for stream in await find(services, topic, agency, required=True):
            console.print_json(data={"service": stream.service.name, **await stream.service.get(stream.path)})


@app.command()
@on_target
async def replay(
    target: Target,
    topic: Annotated[str | None, typer.Argument(help="The stream's topic; also give the agency.")] = None,
    agency: Annotated[str | None, typer.Argument(help="The stream's agency.")] = None,
    every_of: Annotated[str | None, typer.Option("--agency", help="Replay every parked stream of this agency.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Replay every parked stream.")] = False,
    service: ServiceOption = None,
) -> bool:
    """Apply the waiting records in order: of one stream, one agency, or all. Exit status 1 if one stays parked."""
    if sum((topic is not None and agency is not None, every_of is not None, every)) != 1:
        raise typer.BadParameter("give either a topic and an agency, or --agency, or --all")
    async with target.services(service) as services:
        streams = await find(services, topic, agency or every_of, required=topic is not None)
        replies = [(stream, await stream.service.post(f"{stream.path}/replay")) for stream in streams]
    for stream, reply in replies:
        console.print(f"{stream}: {outcome(reply, 'replayed')}", highlight=False)
    if not replies:
        console.print("Nothing is parked.")
    return not any(reply["parked"] for _, reply in replies)


@app.command()
@on_target
async def discard(
    target: Target,
    topic: Topic,
    agency: Agency,
    record: Annotated[
        list[str],
        typer.Option("--record", help="PARTITION@OFFSET of the first waiting record, as `show` prints it. Repeatable."),
    ],
    reason: Reason,
    service: ServiceOption = None,
) -> None:
    """Discard the first records of a parked stream, permanently. Then replay the records behind them."""
    records = [_named(name) for name in record]
    async with target.services(service) as services:
        stream = await one(services, topic, agency)
        reply = await stream.service.post(f"{stream.path}/discard", {"records": records, "reason": reason})
    rest = f"{reply['left']:,} more wait: replay the stream" if reply["left"] else "no record waits"
    console.print(f"{stream}: discarded {', '.join(record)}; {rest}", highlight=False)


def outcome(reply: Mapping[str, Any], done: str) -> str:
    """The outcome of a replay or a retry."""
    return f"[red]still parked:[/red] {escape(reply['reason'])}" if reply["parked"] else done


def _named(record: str) -> dict[str, int]:
    match = re.fullmatch(r"(\d{1,9})@(\d{1,18})", record, re.ASCII)
    if match is None:
        raise typer.BadParameter(f"--record {record}: must be PARTITION@OFFSET, such as 2@1071")
    return {"partition": int(match[1]), "offset": int(match[2])}


async def find(
    services: dict[str, Service], topic: str | None = None, agency_id: str | None = None, *, required: bool = False
) -> list[Stream]:
    """The parked streams of services, by topic or agency, or all. Raises Refused if a required one is missing."""
    found = [
        Stream(service, item["topic"], item["agency_id"], item)
        for service, item in await every_item(services, "/v1/parked")
        if topic in (None, item["topic"]) and agency_id in (None, item["agency_id"])
    ]
    if required and not found:
        raise Refused(f"no stream of {agency_id} on topic {topic} is parked")
    return found


async def one(services: dict[str, Service], topic: str, agency_id: str) -> Stream:
    """The parked stream of that topic and agency. Raises Refused if it is parked in several services."""
    found = await find(services, topic, agency_id, required=True)
    if len(found) > 1:
        names = " and ".join(stream.service.name for stream in found)
        raise Refused(f"the stream is parked in {names}: choose one with --service")
    return found[0]

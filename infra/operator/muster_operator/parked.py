"""`muster parked`: parked streams, and the commands to replay or discard them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Group
from rich.json import JSON
from rich.markup import escape

from muster_operator.failures import BadInput, NotFound
from muster_operator.group import group
from muster_operator.options import ServiceOption
from muster_operator.output import Answer, table
from muster_operator.service import Service, every_item
from muster_operator.target import Target, on_target
from muster_runtime.text import count

app = group("Show, replay, and discard parked streams: those with an event that could not be applied.")

Topic = Annotated[str, typer.Argument(help="The topic, such as muster.enrollment.agency.")]
Agency = Annotated[str, typer.Argument(help="The agency's ID, such as NASA.")]
Reason = Annotated[
    str, typer.Option("--reason", help="The reason, of at least three characters; the audit trail keeps it.")
]
PublicReason = Annotated[
    str,
    typer.Option(
        "--reason",
        help="The reason, of at least three characters. Every subscriber receives it: do not name a person.",
    ),
]


@dataclass(frozen=True)
class Stream:
    """A parked stream and its service."""

    service: Service
    topic: str
    agency_id: str
    facts: dict[str, Any]

    @property
    def path(self) -> str:
        """Its path in the service's API."""
        return f"/v1/parked/{quote(self.topic, safe='')}/{quote(self.agency_id, safe='')}"

    def named(self) -> dict[str, str]:
        """The fields that identify it."""
        return {"service": self.service.name, "topic": self.topic, "agency_id": self.agency_id}

    def __str__(self) -> str:
        return f"{self.service.name}: {self.topic} of {self.agency_id}"


@app.command("list")
@on_target()
async def list_(target: Target, service: ServiceOption = None) -> Answer:
    """List the parked streams: why, since when, and how many records wait."""
    async with target.services(service) as services:
        streams = await find(services)
    rows = [
        (
            stream.service.name,
            stream.topic,
            stream.agency_id,
            stream.facts["parked_at"],
            f"{stream.facts['records']:,}",
            escape(stream.facts["reason"]),
        )
        for stream in streams
    ]
    shown = table(("service", "topic", "agency", "since", "records", "why"), rows)
    return Answer(
        {"items": [{"service": stream.service.name, **stream.facts} for stream in streams]},
        shown if streams else "Nothing is parked.",
    )


@app.command()
@on_target()
async def show(target: Target, topic: Topic, agency: Agency, service: ServiceOption = None) -> Answer:
    """Show the error and the first raw records of a parked stream, as JSON."""
    async with target.services(service) as services:
        streams = await find(services, topic, agency, required=True)
        items = [{"service": stream.service.name, **await stream.service.get(stream.path)} for stream in streams]
    return Answer({"items": items}, Group(*(JSON.from_data(item) for item in items)))


@app.command()
@on_target()
async def replay(
    target: Target,
    topic: Annotated[str | None, typer.Argument(help="The stream's topic; pass its agency, too.")] = None,
    agency: Annotated[str | None, typer.Argument(help="The stream's agency.")] = None,
    every_of: Annotated[str | None, typer.Option("--agency", help="Replay every parked stream of this agency.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Replay every parked stream.")] = False,
    service: ServiceOption = None,
) -> Answer:
    """Apply the waiting records of one stream, one agency, or all, in order.

    The exit status is 1 if any stream stays parked.
    """
    if sum((topic is not None and agency is not None, every_of is not None, every)) != 1:
        raise BadInput("pass a topic and an agency, --agency, or --all")
    async with target.services(service) as services:
        streams = await find(services, topic, agency or every_of, required=topic is not None)
        replies = [(stream, await stream.service.post(f"{stream.path}/replay")) for stream in streams]
    return Answer(
        {"items": [{**stream.named(), **reply} for stream, reply in replies]},
        "\n".join(f"{stream}: {outcome(reply, 'replayed')}" for stream, reply in replies) or "Nothing is parked.",
        ok=not any(reply["parked"] for _, reply in replies),
    )


@app.command()
@on_target()
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
) -> Answer:
    """Permanently discard the first records of a parked stream. Then replay the records behind them."""
    records = [_named(name) for name in record]
    async with target.services(service) as services:
        stream = await one(services, topic, agency)
        reply = await stream.service.post(f"{stream.path}/discard", {"records": records, "reason": reason})
    rest = f"{count(reply['left'], 'more waits', 'more wait')}: replay the stream" if reply["left"] else "none is left"
    return Answer({**stream.named(), **reply}, f"{stream}: discarded {', '.join(record)}; {rest}")


def outcome(reply: Mapping[str, Any], done: str) -> str:
    """The outcome of a replay or a retry."""
    return f"[red]still parked:[/red] {escape(reply['reason'])}" if reply["parked"] else done


def _named(record: str) -> dict[str, int]:
    match = re.fullmatch(r"(\d{1,9})@(\d{1,18})", record, re.ASCII)
    if match is None:
        raise BadInput(f"--record {record}: must be PARTITION@OFFSET, such as 2@1071")
    return {"partition": int(match[1]), "offset": int(match[2])}


async def find(
    services: dict[str, Service], topic: str | None = None, agency_id: str | None = None, *, required: bool = False
) -> list[Stream]:
    """The services' parked streams, filtered by topic and agency. Raises NotFound if `required` and none matches."""
    found = [
        Stream(service, item["topic"], item["agency_id"], item)
        for service, item in await every_item(services, "/v1/parked")
        if topic in (None, item["topic"]) and agency_id in (None, item["agency_id"])
    ]
    if required and not found:
        raise NotFound(f"no stream of {agency_id} on topic {topic} is parked")
    return found


async def one(services: dict[str, Service], topic: str, agency_id: str) -> Stream:
    """The parked stream of that topic and agency. Raises BadInput if it is parked in several services."""
    found = await find(services, topic, agency_id, required=True)
    if len(found) > 1:
        names = " and ".join(stream.service.name for stream in found)
        raise BadInput(f"the stream is parked in {names}: choose one with --service")
    return found[0]

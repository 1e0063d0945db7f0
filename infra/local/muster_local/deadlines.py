"""`muster deadlines`: parked deadlines, and the commands to retry or discard them."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from muster_local.parked import Agency, Reason, outcome
from muster_local.target import Refused, Service, ServiceOption, Target, console, every_item, on_target

app = typer.Typer(
    no_args_is_help=True, help="List, retry, and discard parked deadlines: those that could not be handled."
)

Kind = Annotated[str, typer.Argument(help="The kind, as `list` prints it.")]
Subject = Annotated[str, typer.Argument(help="The subject, as `list` prints it.")]

PATH = "/v1/parked-deadlines"


@app.command("list")
@on_target
async def list_(target: Target, service: ServiceOption = None) -> None:
    """List the parked deadlines: when they were due, and why they failed."""
    async with target.services(service) as services:
        found = await every_item(services, PATH)
    table = Table("service", "kind", "agency", "subject", "due", "parked", "why", box=None, pad_edge=False)
    for each, item in found:
        columns = ("kind", "agency_id", "subject", "due_at", "parked_at", "reason")
        table.add_row(each.name, *(escape(item[column]) for column in columns))
    console.print(table if found else "No deadline is parked.")


@app.command()
@on_target
async def retry(target: Target, kind: Kind, agency: Agency, subject: Subject, service: ServiceOption = None) -> bool:
    """Handle a parked deadline now, as of its due instant. The exit status is 1 if it stays parked."""
    async with target.services(service) as services:
        each, name = await _one(services, kind, agency, subject)
        reply = await each.post(f"{PATH}/retry", name)
    console.print(outcome(reply, "handled"), highlight=False)
    return not reply["parked"]


@app.command()
@on_target
async def discard(
    target: Target, kind: Kind, agency: Agency, subject: Subject, reason: Reason, service: ServiceOption = None
) -> None:
    """Discard a parked deadline, permanently: it never takes effect."""
    async with target.services(service) as services:
        each, name = await _one(services, kind, agency, subject)
        await each.post(f"{PATH}/discard", {**name, "reason": reason})
    console.print(f"{each.name}: discarded {kind} of {subject}", markup=False, highlight=False)


async def _one(services: dict[str, Service], kind: str, agency_id: str, subject: str) -> tuple[Service, dict[str, str]]:
    """The parked deadline, and the key that its service uses for it. Raises Refused."""
    found = [
        (service, item)
        for service, item in await every_item(services, PATH)
        if (item["kind"], item["agency_id"], item["subject"]) == (kind, agency_id, subject)
    ]
    if not found:
        raise Refused(f"no deadline {kind} of {subject} is parked in {agency_id}")
    if len(found) > 1:
        raise Refused(
            f"the deadline is parked in {' and '.join(service.name for service, _ in found)}: choose one with --service"
        )
    service, item = found[0]
    return service, {name: item[name] for name in ("kind", "agency_id", "subject", "due_at")}

"""`muster deadlines`: what was due and could not be handled, and what an operator does about it."""

import asyncio
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from muster_local.parked import Agency, Reason
from muster_local.stack import DEFAULT_HOME
from muster_local.target import HomeOption, Refused, Service, ServiceOption, Target, TokenOption, console, run

app = typer.Typer(no_args_is_help=True, help="Deadlines that could not be handled, and are parked.")

Kind = Annotated[str, typer.Argument(help="The kind, as `list` has it.")]
Subject = Annotated[str, typer.Argument(help="What it is about, as `list` has it.")]

PATH = "/v1/parked-deadlines"


@app.command("list")
def list_(home: HomeOption = DEFAULT_HOME, token: TokenOption = None, service: ServiceOption = None) -> None:
    """List what is parked: since when it was due, and why it could not be handled."""

    async def work() -> None:
        async with Target.find(home, token).require("urls").services(service) as services:
            found = await _find(services)
        table = Table("service", "kind", "agency", "subject", "due", "parked", "why", box=None, pad_edge=False)
        for each, item in found:
            columns = ("kind", "agency_id", "subject", "due_at", "parked_at", "reason")
            table.add_row(each.name, *(escape(item[column]) for column in columns))
        console.print(table if found else "No deadline is parked.")

    run(work())


@app.command()
def retry(
    kind: Kind,
    agency: Agency,
    subject: Subject,
    home: HomeOption = DEFAULT_HOME,
    token: TokenOption = None,
    service: ServiceOption = None,
) -> None:
    """Handle a parked deadline now, as of its own instant. The exit status is 1 where it stays parked."""

    async def work() -> bool:
        async with Target.find(home, token).require("urls").services(service) as services:
            each, name = await _one(services, kind, agency, subject)
            reply = await each.post(f"{PATH}/retry", name)
        console.print(f"still parked: {reply['reason']}" if reply["parked"] else "handled", markup=False)
        return not reply["parked"]

    if not run(work()):
        raise typer.Exit(1)


@app.command()
def discard(
    kind: Kind,
    agency: Agency,
    subject: Subject,
    reason: Reason,
    home: HomeOption = DEFAULT_HOME,
    token: TokenOption = None,
    service: ServiceOption = None,
) -> None:
    """Give up a parked deadline, for good: what it was to bring about does not come."""

    async def work() -> None:
        async with Target.find(home, token).require("urls").services(service) as services:
            each, name = await _one(services, kind, agency, subject)
            await each.post(f"{PATH}/discard", {**name, "reason": reason})
        console.print(f"{each.name}: {kind} of {subject} given up", markup=False, highlight=False)

    run(work())


async def _find(services: dict[str, Service]) -> list[tuple[Service, dict[str, Any]]]:
    async def of(service: Service) -> list[tuple[Service, dict[str, Any]]]:
        return [(service, item) async for item in service.items(PATH)]

    return [found for items in await asyncio.gather(*map(of, services.values())) for found in items]


async def _one(services: dict[str, Service], kind: str, agency_id: str, subject: str) -> tuple[Service, dict[str, str]]:
    """The one that is meant, with the name that the service knows it by. Raises Refused."""
    found = [
        (service, item)
        for service, item in await _find(services)
        if (item["kind"], item["agency_id"], item["subject"]) == (kind, agency_id, subject)
    ]
    if not found:
        raise Refused(f"no deadline {kind} of {subject} is parked in {agency_id}")
    if len(found) > 1:
        raise Refused(f"it is parked in {' and '.join(service.name for service, _ in found)}: give --service")
    service, item = found[0]
    return service, {name: item[name] for name in ("kind", "agency_id", "subject", "due_at")}

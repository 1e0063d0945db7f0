"""`muster deadlines`: parked deadlines, and the commands to retry or discard them."""

from typing import Annotated

import typer
from rich.markup import escape

from muster_operator.failures import BadInput, NotFound
from muster_operator.group import group
from muster_operator.options import ServiceOption
from muster_operator.output import Answer, table
from muster_operator.parked import Agency, Reason, outcome
from muster_operator.service import Service, every_item
from muster_operator.target import Target, on_target

app = group("List, retry, and discard parked deadlines: those that could not be handled.")

Kind = Annotated[str, typer.Argument(help="The kind, as `list` prints it.")]
Subject = Annotated[str, typer.Argument(help="The subject, as `list` prints it.")]

PATH = "/v1/parked-deadlines"


@app.command("list")
@on_target()
async def list_(target: Target, service: ServiceOption = None) -> Answer:
    """List the parked deadlines: when they were due, and why they failed."""
    async with target.services(service) as services:
        found = await every_item(services, PATH)
    fields = ("kind", "agency_id", "subject", "due_at", "parked_at", "reason")
    rows = [(each.name, *(escape(item[field]) for field in fields)) for each, item in found]
    shown = table(("service", "kind", "agency", "subject", "due", "parked", "why"), rows)
    return Answer(
        {"items": [{"service": each.name, **item} for each, item in found]},
        shown if found else "No deadline is parked.",
    )


@app.command()
@on_target()
async def retry(target: Target, kind: Kind, agency: Agency, subject: Subject, service: ServiceOption = None) -> Answer:
    """Handle a parked deadline now, as of its due time. The exit status is 1 if it stays parked."""
    async with target.services(service) as services:
        each, name = await _one(services, kind, agency, subject)
        reply = await each.post(f"{PATH}/retry", name)
    return Answer({"service": each.name, **name, **reply}, outcome(reply, "handled"), ok=not reply["parked"])


@app.command()
@on_target()
async def discard(
    target: Target, kind: Kind, agency: Agency, subject: Subject, reason: Reason, service: ServiceOption = None
) -> Answer:
    """Permanently discard a parked deadline: it never takes effect."""
    async with target.services(service) as services:
        each, name = await _one(services, kind, agency, subject)
        await each.post(f"{PATH}/discard", {**name, "reason": reason})
    return Answer({"service": each.name, **name}, escape(f"{each.name}: discarded {kind} of {subject}"))


async def _one(services: dict[str, Service], kind: str, agency_id: str, subject: str) -> tuple[Service, dict[str, str]]:
    """The parked deadline's service, and the key that identifies it there.

    Raises NotFound, and BadInput if several services have it.
    """
    found = [
        (service, item)
        for service, item in await every_item(services, PATH)
        if (item["kind"], item["agency_id"], item["subject"]) == (kind, agency_id, subject)
    ]
    if not found:
        raise NotFound(f"no parked deadline of the kind {kind!r} with the subject {subject!r} for agency {agency_id!r}")
    if len(found) > 1:
        raise BadInput(
            f"the deadline is parked in {' and '.join(service.name for service, _ in found)}: choose one with --service"
        )
    service, item = found[0]
    return service, {name: item[name] for name in ("kind", "agency_id", "subject", "due_at")}

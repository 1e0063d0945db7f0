"""`muster deadlines`: parked deadlines, the commands to retry or discard them, and the end of a hold on all."""

from typing import Annotated

import typer
from rich.console import Group
from rich.markup import escape

from muster_operator.failures import BadInput, NotFound
from muster_operator.group import group
from muster_operator.options import ServiceOption, a_service
from muster_operator.output import Answer, table
from muster_operator.parked import Agency, Reason, outcome
from muster_operator.service import Service, every_item
from muster_operator.target import Target, on_target

app = group("List, retry, and discard parked deadlines; release those that are held after a restore.")

Kind = Annotated[str, typer.Argument(help="The kind, as `list` prints it.")]
Subject = Annotated[str, typer.Argument(help="The subject, as `list` prints it.")]

PATH = "/v1/parked-deadlines"


@app.command("list")
@on_target()
async def list_(target: Target, service: ServiceOption = None) -> Answer:
    """List the parked deadlines: when they were due, and why they failed. Also name services with held deadlines."""
    async with target.services(service) as services:
        found = await every_item(services, PATH)
        holds = [(each.name, await _held_since(each)) for each in services.values()]
    held = [(name, since) for name, since in holds if since is not None]
    fields = ("kind", "agency_id", "subject", "due_at", "parked_at", "reason")
    rows = [(each.name, *(escape(item[field]) for field in fields)) for each, item in found]
    shown = table(("service", "kind", "agency", "subject", "due", "parked", "why"), rows)
    lines = [f"{name}: all deadlines are held since {since} (muster deadlines release {name})" for name, since in held]
    return Answer(
        {
            "items": [{"service": each.name, **item} for each, item in found],
            "held": [{"service": name, "since": since} for name, since in held],
        },
        Group(*lines, shown if found else "No deadline is parked."),
    )


@app.command()
@on_target()
async def retry(target: Target, kind: Kind, agency: Agency, subject: Subject, service: ServiceOption = None) -> Answer:
    """Handle a parked deadline now, as of its due time. The exit status is 1 if it stays parked.

    It is refused while the service handles no deadlines. During a hold, release them first; after a restart of
    Postgres, wait until the relay has looked for lost commits.
    """
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


@app.command()
@on_target()
async def release(
    target: Target,
    service: Annotated[
        str, typer.Argument(metavar="SERVICE", callback=a_service, help="The service whose deadlines are held.")
    ],
    reason: Reason,
) -> Answer:
    """Let a restored service handle its deadlines again. Do this once its lost commands have been repeated.

    It is refused until the service's relay has compared the topics with the database and found nothing missing.
    """
    async with target.services(service) as services:
        released = await services[service].post("/v1/deadlines/release", {"reason": reason})
    since = released["held_since"]
    text = f"its deadlines are released; they were held since {since}" if since else "its deadlines were not held"
    return Answer({"service": service, **released}, f"{service}: {text}")


async def _held_since(service: Service) -> str | None:
    """Since when a service's deadlines are held; None if they are not. A release without the route never holds them."""
    try:
        hold = await service.get("/v1/deadlines/hold")
    except NotFound:
        return None
    since: str | None = hold["held_since"]
    return since


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

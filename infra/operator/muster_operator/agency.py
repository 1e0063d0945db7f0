"""`muster agency`: lists agencies, enrolls and authorizes them, and withdraws them from the program."""

import asyncio
import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.markup import escape

from muster_operator.failures import NotFound
from muster_operator.group import group
from muster_operator.output import Answer, facts, table
from muster_operator.parked import PublicReason
from muster_operator.service import agency_path
from muster_operator.target import Target, on_target
from muster_runtime.clock import SystemClock

app = group("List, show, enroll, authorize, and withdraw agencies; accept the data-use terms.")

_SERVICE = "enrollment"

Agency = Annotated[str, typer.Argument(help="The agency's ID, such as NASA.")]
_FROM = typer.Option(metavar="INSTANT", help="The start, with a UTC offset, such as 2025-10-05T00:00:00Z.")
_UNTIL = typer.Option(metavar="INSTANT", help="The exclusive end, with a UTC offset, such as 2026-10-05T00:00:00Z.")


@app.command("list")
@on_target()
async def list_(target: Target) -> Answer:
    """List the agencies in the register."""
    async with target.service(_SERVICE, "read") as service:
        items = [item async for item in service.items("/v1/agencies")]
    rows = [
        (item["id"], escape(item["name"]), item["branch"], _number(item["headcount"]), item["parent"] or "-")
        for item in items
    ]
    nothing = "There are no agencies yet: import the register (POST /v1/register of enrollment)."
    return Answer({"items": items}, table(("id", "name", "branch", "headcount", "parent"), rows) if rows else nothing)


@app.command()
@on_target()
async def show(target: Target, agency: Agency) -> Answer:
    """Show an agency, its latest enrollment with any unmet conditions, and its authorizations."""
    async with target.service(_SERVICE, "read") as service:
        found = await service.get(agency_path(agency))
        enrollment = await service.get(f"{agency_path(agency)}/enrollment")
        authorizations = [item async for item in service.items(f"{agency_path(agency)}/authorizations")]
    about = facts({"name": found["name"], **enrollment})
    rows = [
        (escape(each["number"]), each["valid_from"], each["valid_until"], each["revoked_at"] or "-")
        for each in authorizations
    ]
    shown = table(("authorization", "valid from", "valid until", "revoked"), rows)
    return Answer(
        {"agency": found, "enrollment": enrollment, "authorizations": authorizations},
        Group(about, "", shown) if rows else Group(about, "", "No authorization is recorded."),
    )


@app.command()
@on_target()
async def enroll(
    target: Target,
    agency: Agency,
    seats: Annotated[int, typer.Option(min=1, help="The number of seats to request.")],
    contact_name: Annotated[str, typer.Option(help="The administrator's name.")],
    contact_email: Annotated[str, typer.Option(help="The administrator's e-mail address.")],
    starts_at: Annotated[
        str | None,
        typer.Option(
            metavar="INSTANT", help="The start, such as 2025-10-05T00:00:00Z. Default: now, by this machine's clock."
        ),
    ] = None,
    time_zone: Annotated[
        str | None,
        typer.Option(help="The time zone of the agency's dates, such as America/New_York. Default: UTC."),
    ] = None,
    continues: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AGENCY",
            help="An agency that this one continues, as after a split or a merger: the trial time that it has used "
            "counts as used. Repeatable.",
        ),
    ] = None,
) -> Answer:
    """Submit an agency's enrollment. It becomes active once it is authorized and the terms are accepted."""
    body: dict[str, Any] = {
        "seats": seats,
        "starts_at": starts_at or SystemClock().now().isoformat(),
        "contact": {"name": contact_name, "email": contact_email},
    }
    if time_zone is not None:
        body["time_zone"] = time_zone
    if continues:
        body["continues"] = continues
    return await _post(target, "write", f"{agency_path(agency)}/enrollments", body)


@app.command()
@on_target()
async def authorize(
    target: Target,
    agency: Agency,
    number: Annotated[str, typer.Option(help="The authorization's number.")],
    valid_from: Annotated[str, _FROM],
    valid_until: Annotated[str, _UNTIL],
    issuer: Annotated[str, typer.Option(help="Who issued it.")] = "GSA",
    product: Annotated[str, typer.Option(help="The product that it covers.")] = "frontier-assistant",
) -> Answer:
    """Record an authorization to use (ATU) that was issued to an agency."""
    body = {
        "number": number,
        "issuer": issuer,
        "product": product,
        "valid_from": valid_from,
        "valid_until": valid_until,
    }
    return await _post(target, "authorize", f"{agency_path(agency)}/authorizations", body)


@app.command()
@on_target()
async def accept(
    target: Target,
    agency: Agency,
    terms_version: Annotated[str, typer.Option(help="The version of the data-use terms, such as 2025-08.")],
    signer_name: Annotated[str, typer.Option(help="Who signed for the agency.")],
    signer_email: Annotated[str, typer.Option(help="The signer's e-mail address.")],
    document: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="The signed document. Only its SHA-256 hash is sent.")
    ],
) -> Answer:
    """Accept the data-use terms for an agency."""
    evidence = hashlib.sha256(await asyncio.to_thread(document.read_bytes)).hexdigest()
    body = {
        "terms_version": terms_version,
        "signer": {"name": signer_name, "email": signer_email},
        "evidence_sha256": evidence,
    }
    return await _post(target, "write", f"{agency_path(agency)}/data-use-acceptances", body)


@app.command()
@on_target()
async def withdraw(
    target: Target,
    agency: Agency,
    reason: PublicReason,
) -> Answer:
    """Withdraw an agency from the program, if its enrollment has not changed since the command read it."""
    async with target.service(_SERVICE, "read", "write") as service:
        version = await service.version(f"{agency_path(agency)}/enrollment")
        if not version:
            raise NotFound(f"{agency} has no enrollment to withdraw")
        reply = await service.post(f"{agency_path(agency)}/withdrawal", {"reason": reason}, if_match=version)
    return Answer(reply, facts(reply))


async def _post(target: Target, action: str, path: str, body: dict[str, Any]) -> Answer:
    async with target.service(_SERVICE, action) as service:
        reply = await service.post(path, body)
    return Answer(reply, facts(reply))


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"

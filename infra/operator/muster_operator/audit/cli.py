"""The commands of `muster audit`."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Group
from rich.markup import escape
from rich.text import Text

from muster_contracts import SERVICES
from muster_operator.audit.export import export
from muster_operator.audit.finding import Finding, span
from muster_operator.audit.verify import Verified, verify
from muster_operator.clients import client_of_postgres, clients_of_servers
from muster_operator.failures import BadInput, NotFound
from muster_operator.group import group
from muster_operator.options import ServiceOption, a_service
from muster_operator.output import Answer, table
from muster_operator.service import every_item
from muster_operator.target import Target, on_target
from muster_runtime.text import count

app = group("Verify the audit trails against their seals, and export them.")

_AgencyOption = Annotated[str | None, typer.Option("--agency", help="Only this agency; * is the program itself.")]


def _instant(text: str) -> datetime:
    """An ISO 8601 date or instant; without a time zone, UTC."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an ISO 8601 date or instant") from None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


@app.command("verify")
@on_target(asks=False)
async def verify_trails(
    target: Target,
    service: ServiceOption = None,
    agency: _AgencyOption = None,
    since: Annotated[
        datetime | None,
        typer.Option(parser=_instant, help="Only rows sealed since then. Default: all. Always reads the whole topic."),
    ] = None,
    accept_epoch: Annotated[
        list[int] | None,
        typer.Option(
            help="An epoch raised after a known restore: seals lost in the restore are not findings. Repeatable."
        ),
    ] = None,
    settle: Annotated[
        float,
        typer.Option(
            min=0, help="Seconds until rows that seem late are checked again, for a sandbox whose clock was moved."
        ),
    ] = 0.0,
) -> Answer:
    """Compare the audit rows with their seals, and the seals with the topics. The exit status is 1 if they differ.

    It cannot detect a change made to a row before the row was sealed, which takes about a minute.
    """
    target.require("admin_dsn", "kafka")
    async with clients_of_servers(target.kafka):
        verified = [
            await verify(
                target,
                name,
                agency_id=agency,
                since=since,
                accepted_epochs=accept_epoch or (),
                settle=settle,
            )
            for name in (SERVICES if service is None else (service,))
        ]
    if agency is not None and not any(each.agencies or each.findings for each in verified):
        raise NotFound(f"no audit trail of {agency!r} in {service or 'any service'}")
    return _answer(verified)


@app.command("reads")
@on_target()
async def list_reads(target: Target, service: ServiceOption = None, agency: _AgencyOption = None) -> Answer:
    """List the requests whose responses contained people's names or addresses, oldest first."""
    query = {} if agency is None else {"agency_id": agency}
    async with target.services(service) as services:
        found = await every_item(services, "/v1/personal-reads", **query)
    rows = [
        (
            each.name,
            *(escape(str(item[name])) for name in ("read_at", "agency_id", "actor", "route", "request_id")),
            str(len(item["subject_refs"])),
        )
        for each, item in found
    ]
    shown = table(("service", "read", "agency", "by", "route", "request", "people"), rows)
    items = [{"service": each.name, **item} for each, item in found]
    return Answer({"items": items}, shown if found else "Nobody has read names or addresses.")


@app.command("export")
@on_target(asks=False)
async def export_trail(
    target: Target,
    service: Annotated[str, typer.Option(callback=a_service, help="The service.")],
    agency: Annotated[str, typer.Option(help="The agency; * is the program itself.")],
    start: Annotated[datetime, typer.Option("--from", parser=_instant, help="Inclusive start of the period.")],
    end: Annotated[datetime, typer.Option("--to", parser=_instant, help="Exclusive end of the period.")],
    out: Annotated[Path, typer.Option(help="The file; with CSV, the seals go to FILE.seals.csv beside it.")],
    form: Annotated[Literal["csv", "json"], typer.Option("--format", help="The file's format.")] = "json",
) -> Answer:
    """Export an agency's audit rows for a period, with all rows of the seals that cover them, for verification."""
    target.require("admin_dsn")
    if start >= end:
        raise BadInput(f"--from {start.isoformat()}: must be before --to {end.isoformat()}")
    async with client_of_postgres():
        exported = await export(target.admin_dsn, service, agency, start, end, out, form)
    files = ", ".join(map(str, exported.files))
    text = f"{count(exported.rows, 'row')} in {count(exported.seals, 'seal')}: {files}"
    left = Text(f"left out, because not sealed yet: {count(exported.unsealed, 'row')} of the period", style="yellow")
    shown = Group(text, left) if exported.unsealed else text
    return Answer({**asdict(exported), "files": [str(file) for file in exported.files]}, shown)


def _answer(verified: list[Verified]) -> Answer:
    findings = [finding for each in verified for finding in each.findings]
    counts = table(
        ("service", "agencies", "seals", "rows", "not sealed yet"),
        [
            (each.service, f"{each.agencies:,}", f"{each.seals:,}", f"{each.rows:,}", f"{each.unsealed:,}")
            for each in verified
        ],
    )
    data = {
        "clean": not findings,
        "services": [{k: v for k, v in asdict(each).items() if k != "findings"} for each in verified],
        "findings": [asdict(finding) for finding in findings],
    }
    if not findings:
        return Answer(data, Group(counts, "Every sealed row matches its seal."))
    shown = table(("service", "agency", "what", "seals", "rows", "found"), map(_row, findings), lines=True)
    total = Text(f"{count(len(findings), 'finding')}: follow the runbook audit-finding.md", style="red")
    return Answer(data, Group(counts, shown, total), ok=False)


def _row(finding: Finding) -> tuple[str, ...]:
    return (
        finding.service,
        escape(finding.agency_id),
        finding.what,
        span(finding.seals),
        span(finding.ids),
        escape(finding.found),
    )

"""The command: queries every server as the services will, changes nothing, and prints a line for each finding."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from itertools import chain

from rich.markup import escape

from muster_contracts import SERVICES
from muster_operator.options import ServicesOption
from muster_operator.output import Answer, table
from muster_operator.preflight.findings import Finding, Findings, Status
from muster_operator.preflight.issuer import check_issuer
from muster_operator.preflight.kafka import check_cluster, check_kafka
from muster_operator.preflight.postgres import check_postgres
from muster_operator.preflight.smtp import check_smtp
from muster_operator.preflight.subjects import environment_of, read_subject
from muster_operator.target import Target, on_target

_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "red"}


@on_target(asks=False)
async def preflight(target: Target, services: ServicesOption = None) -> Answer:
    """Find what would fail, before an installation or an upgrade.

    It checks settings, secrets, Postgres, Kafka, topics, clocks, the issuer, and SMTP with the services' environment
    and secrets, and changes nothing. The exit status is 1 if a check fails.
    """
    # Sequential: settings are read from this process's environment.
    looked_at = [(name, environment_of(target, name)) for name in services or SERVICES]
    read = [(*read_subject(name, environment), environment) for name, environment in looked_at]
    sandbox = any(subject is not None and subject.settings.environment == "sandbox" for subject, _, _ in read)
    checks = [check_cluster(target, sandbox=sandbox)]
    for subject, _, environment in read:
        if subject is not None:
            checks += [
                check_postgres(subject),
                check_kafka(subject),
                check_issuer(subject.service, subject.settings),
                check_smtp(subject, environment),
            ]
    found = [finding for _, finding, _ in read]
    found += chain.from_iterable(await asyncio.gather(*map(_all, checks)))
    order = ("", *SERVICES)
    return _answer(sorted(found, key=lambda finding: order.index(finding.service)))


async def _all(findings: AsyncIterator[Finding]) -> Findings:
    return [finding async for finding in findings]


def _answer(found: Findings) -> Answer:
    failed = [finding for finding in found if finding.status is Status.FAILED]
    rows = [
        (
            f"[{_STYLES[finding.status]}]{finding.status}[/]",
            finding.service or "all",
            finding.check,
            escape(finding.found + (f"; {finding.remedy}" if finding.remedy else "")),
        )
        for finding in found
    ]
    data = {"ok": not failed, "checks": [asdict(finding) for finding in found]}
    return Answer(data, table(("", "service", "check", "found"), rows), ok=not failed)

"""`muster audit verify`: compares each service's audit rows with their seals, and the seals with its topic."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from rich.progress import MofNCompleteColumn, Progress, TextColumn

from muster_operator.audit.finding import Finding, What
from muster_operator.audit.rows import TrailRows
from muster_operator.audit.topic import TopicSeals
from muster_operator.audit.trail import Agency, Trail
from muster_operator.target import Target
from muster_runtime.console import console
from muster_runtime.messaging.topic_log import TopicLog

# Rows are sealed once a minute; twice that is normal.
UNSEALED_SECONDS = 120


@dataclass(frozen=True)
class Verified:
    """A service's result: the numbers of agencies, seals, rows compared, and rows not sealed yet, and the findings."""

    service: str
    agencies: int
    seals: int
    rows: int
    unsealed: int
    findings: Sequence[Finding]


async def verify(
    target: Target,
    service: str,
    *,
    agency_id: str | None = None,
    since: datetime | None = None,
    accepted_epochs: Collection[int] = (),
    settle: float = 0,
) -> Verified:
    """Verify a service's trails, or one agency's.

    Unsealed rows that are older than UNSEALED_SECONDS by the server's clock are checked again after `settle` seconds. A
    sandbox's rows can seem that old, because its clock differs.
    """
    topic = f"muster.{service}.audit"
    async with (
        _progress(service) as progress,
        Trail.open(target.admin_dsn, service) as trail,
        TopicLog.open(target.kafka, target.topic_prefix, [topic]) as log,
    ):
        agencies = await trail.agencies(topic, agency_id)  # before the topic, so that it has all their published seals
        on_topic = TopicSeals(service, trail, agency_id, accepted_epochs)
        task = progress.add_task(f"{service}: records of the topic", total=await log.unread())
        async for records in log.batches():
            await on_topic.compare(records)
            progress.advance(task, len(records))
        findings = on_topic.findings(agencies)
        findings += [Finding(service, "?", What.UNREADABLE, f"{each} cannot be decoded") for each in log.unreadable]
        task = progress.add_task(f"{service}: rows", total=None)
        compared = 0
        for agency in agencies:
            rows = TrailRows(service, trail, agency, on_topic.kept, lambda count: progress.advance(task, count))
            findings += await rows.compare(since)
            compared += rows.compared
        for agency in agencies:
            if (row := agency.unsealed_undated) is not None:
                found = f"row {row}, because of which no later row can be sealed"
                findings.append(Finding(service, agency.agency_id, What.UNDATED, found, None, (row, row)))
        findings += await _unsealed(trail, service, topic, _with_all_seals(agencies, on_topic), settle)
        return Verified(
            service,
            len(agencies),
            sum(agency.last_number - agency.first_number + 1 for agency in agencies),
            compared,
            sum(agency.unsealed for agency in agencies),
            sorted(findings, key=lambda each: (each.agency_id, each.seals or (0, 0), each.ids or (0, 0))),
        )


def _with_all_seals(agencies: Sequence[Agency], on_topic: TopicSeals) -> list[Agency]:
    """The agencies whose database has the topic's last seal; if it is missing, its rows only seem unsealed."""
    last = dict(sorted(on_topic.kept))
    return [agency for agency in agencies if last.get(agency.agency_id, 0) <= agency.last_number]


async def _unsealed(trail: Trail, service: str, topic: str, agencies: Sequence[Agency], settle: float) -> list[Finding]:
    """The rows that should be sealed by now, and still are not after `settle` seconds."""
    late = {each.agency_id: each for each in agencies if (each.unsealed_seconds or 0) > UNSEALED_SECONDS}
    if not late:
        return []
    if settle:
        console(stderr=True).print(
            f"{service}: rows of {len(late)} agencies are not sealed: checking again in {settle:g} s"
        )
        await asyncio.sleep(settle)
    found = []
    for agency in await trail.agencies(topic):
        before = late.get(agency.agency_id)
        if before is None or agency.unsealed_first is None or agency.unsealed_first != before.unsealed_first:
            continue
        ids = agency.unsealed_first, agency.unsealed_last or agency.unsealed_first
        seconds = agency.unsealed_seconds or 0
        text = f"{agency.unsealed} rows, the oldest for {seconds:,.0f} s: follow the runbook audit-finding.md"
        found.append(Finding(service, agency.agency_id, What.UNSEALED, text, None, ids))
    return found


@asynccontextmanager
async def _progress(service: str) -> AsyncIterator[Progress]:
    stderr = console(stderr=True)
    columns = TextColumn("{task.description}"), MofNCompleteColumn()
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        yield progress

"""`muster streams check`: finds events that are not published yet, or not applied yet."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from muster_contracts import SERVICES
from muster_operator.clients import clients_of_servers
from muster_operator.options import ServicesOption
from muster_operator.output import Answer, table
from muster_operator.reconcile.streams import (
    LOST_COMMITS,
    NOT_PUBLISHED,
    PARKED,
    TOPIC_LACKS,
    TOPICS,
    Ends,
    Missing,
    Stream,
    not_applied,
    not_on_topic,
    read_streams,
)
from muster_operator.target import Target, on_target
from muster_operator.unreadable import warn_unreadable
from muster_runtime.console import console
from muster_runtime.messaging.topic_log import TopicLog
from muster_runtime.text import count

# The pause between checks while streams may still complete.
_PAUSE_SECONDS = 1.0

# Problems that waiting does not fix.
_LASTING = (LOST_COMMITS, PARKED, TOPIC_LACKS)


@dataclass(frozen=True)
class Checked:
    """The number of streams, and what they lack."""

    streams: int
    missing: list[Missing]


@on_target(asks=False)
async def check(
    target: Target,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for events in flight before they count as missing.")
    ] = 30.0,
    services: ServicesOption = None,
) -> Answer:
    """Compare the end of every stream on Kafka with the positions of its producer and of every consumer.

    It reads the topics from the beginning to their current ends. The exit status is 1 unless every stream is complete.
    """
    target.require("admin_dsn", "kafka")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    stderr = console(stderr=True)
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        async with clients_of_servers(target.kafka), TopicLog.open(target.kafka, target.topic_prefix, TOPICS) as log:
            checked = await _compare(target, services or SERVICES, log, wait, progress)
    warn_unreadable(log)
    readers = f"every consumer of {', '.join(services)}" if services else "every consumer"
    complete = f"complete: {count(checked.streams, 'stream')} of {len(TOPICS)} topics, {readers} is at the end"
    shown = _table(checked.missing) if checked.missing else complete
    return Answer(_as_json(checked), shown, ok=not checked.missing)


async def _compare(target: Target, services: Sequence[str], log: TopicLog, wait: float, progress: Progress) -> Checked:
    """Check until nothing is missing or `wait` seconds have passed.

    Readers must reach the topics' ends at the first check, so that new events do not prolong the wait.
    """
    ends = Ends()
    before = first = await read_streams(target.admin_dsn, {}, services)
    task = progress.add_task("Reading the topics", total=await log.unread())
    await _read(log, ends, lambda records: progress.advance(task, records))
    wanted = dict(ends)
    give_up_at = asyncio.get_running_loop().time() + wait
    while True:
        after = await read_streams(target.admin_dsn, ends, services)
        missing = sorted({*not_on_topic(before, ends, after), *not_applied(wanted, after)})
        waiting = under_way(missing)
        if not waiting or asyncio.get_running_loop().time() >= give_up_at:
            streams = set(ends).union(*(service.produced for service in after.values()))
            return Checked(len(streams), missing)
        if before is first:
            progress.console.print(f"Waiting up to {wait:g} s for {count(len(waiting), 'stream')} under way")
        await asyncio.sleep(_PAUSE_SECONDS)
        before = after
        await _read(log, ends)
        # Events published in the meantime must be applied too.
        published = {each.stream for each in missing if each.what == NOT_PUBLISHED}
        wanted |= {stream: ends[stream] for stream in published & ends.keys()}


def under_way(missing: list[Missing]) -> set[Stream]:
    """The streams that may become complete. A service that lost commits is silent until its epoch is raised."""
    held = {each.service for each in missing if each.what == LOST_COMMITS}
    return {
        each.stream
        for each in missing
        if each.what not in _LASTING and not (each.what == NOT_PUBLISHED and each.service in held)
    }


async def _read(log: TopicLog, ends: Ends, tell: Callable[[int], None] = lambda _: None) -> None:
    """Continue reading to the topics' current ends."""
    async for records in log.batches():
        for record in records:
            ends.note(record.topic.removeprefix(log.topic_prefix), record)
        tell(len(records))


def _table(missing: list[Missing]) -> Table:
    rows = [
        map(escape, (each.topic, each.agency_id, each.service, each.why, each.sequences, each.remedy))
        for each in missing
    ]
    return table(("topic", "agency", "service", "what", "sequences", "what to do"), rows, lines=True)


def _as_json(checked: Checked) -> dict[str, object]:
    return {
        "complete": not checked.missing,
        "streams": checked.streams,
        "topics": len(TOPICS),
        "missing": [
            {
                "topic": each.topic,
                "agency_id": each.agency_id,
                "service": each.service,
                "what": each.what,
                "after": each.after._asdict(),
                "last": each.last._asdict(),
                "reason": each.reason,
                "remedy": each.remedy,
            }
            for each in checked.missing
        ],
    }

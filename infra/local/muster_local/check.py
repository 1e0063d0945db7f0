"""`muster streams check`: what was made and is not published, and what was published and is not applied."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import asyncpg
import typer
from aiokafka.errors import KafkaError
from asyncpg.exceptions import TargetServerAttributeNotMatched
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from muster_local.reconcile.streams import (
    LOST_COMMITS,
    NOT_PUBLISHED,
    TOPIC_LACKS,
    TOPICS,
    Ends,
    Missing,
    Stream,
    not_applied,
    not_on_topic,
    read_streams,
)
from muster_local.stack import DEFAULT_HOME
from muster_local.target import HomeOption, Refused, Target, console, run
from muster_local.topic_log import TopicLog

# Between two looks at what may be under way.
_PAUSE_SECONDS = 1.0

# No waiting mends these.
_LASTING = (LOST_COMMITS, TOPIC_LACKS)


@dataclass(frozen=True)
class Checked:
    """How many streams there are, and what is missing of any."""

    streams: int
    missing: list[Missing]


def check(
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for what is under way before it counts as missing.")
    ] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Compare where every stream ends on Kafka with its producer and with every consumer.

    It reads the topics from their beginning to where they end now. The exit status is 1 unless all is complete.
    """
    target = Target.find(home).require("admin_dsn", "bootstrap")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    stderr = Console(stderr=True)
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        checked = run(_check(target, wait, progress))
    if as_json:
        typer.echo(json.dumps(_as_json(checked), indent=2))
    elif checked.missing:
        console.print(_table(checked.missing))
    else:
        console.print(
            f"complete: {checked.streams:,} streams of {len(TOPICS)} topics, every consumer is at the end",
            highlight=False,
        )
    if checked.missing:
        raise typer.Exit(1)


async def _check(target: Target, wait: float, progress: Progress) -> Checked:
    try:
        async with TopicLog.open(target.bootstrap, target.topic_prefix, TOPICS) as log:
            return await _compare(target, log, wait, progress)
    except TargetServerAttributeNotMatched:
        raise Refused("Postgres is a standby, which may lag behind: name its primary") from None
    except (OSError, asyncpg.PostgresError) as error:
        raise Refused(f"Postgres cannot be asked: {error or type(error).__name__}") from None
    except KafkaError as error:
        raise Refused(f"Kafka cannot be read: {error!r}") from None


async def _compare(target: Target, log: TopicLog, wait: float, progress: Progress) -> Checked:
    """Look until nothing is missing, or `wait` is over.

    Readers are held to where the topics ended at the first look, so that new events do not keep this from an end.
    """
    ends = Ends()
    before = first = await read_streams(target.admin_dsn, {})
    task = progress.add_task("Reading the topics", total=await log.unread())
    await _read(log, target.topic_prefix, ends, lambda records: progress.advance(task, records))
    wanted = dict(ends)
    give_up_at = asyncio.get_running_loop().time() + wait
    while True:
        after = await read_streams(target.admin_dsn, ends)
        missing = sorted({*not_on_topic(before, ends, after), *not_applied(wanted, after)})
        waiting = under_way(missing)
        if not waiting or asyncio.get_running_loop().time() >= give_up_at:
            streams = set(ends).union(*(service.produced for service in after.values()))
            return Checked(len(streams), missing)
        if before is first:
            progress.console.print(f"Waiting {wait:g} s at most: {len(waiting):,} streams are under way or wait")
        await asyncio.sleep(_PAUSE_SECONDS)
        before = after
        await _read(log, target.topic_prefix, ends)
        # What is published by now is to be applied as well.
        published = {each.stream for each in missing if each.what == NOT_PUBLISHED}
        wanted |= {stream: ends[stream] for stream in published & ends.keys()}


def under_way(missing: list[Missing]) -> set[Stream]:
    """The streams that may become complete. A service that lost commits publishes nothing until its epoch is raised."""
    held = {each.service for each in missing if each.what == LOST_COMMITS}
    return {
        each.stream
        for each in missing
        if each.what not in _LASTING and not (each.what == NOT_PUBLISHED and each.service in held)
    }


async def _read(log: TopicLog, prefix: str, ends: Ends, tell: Callable[[int], None] = lambda _: None) -> None:
    """Read on to where the topics end now."""
    async for records in log.batches():
        for record in records:
            ends.note(record.topic.removeprefix(prefix), record)
        tell(len(records))


def _table(missing: list[Missing]) -> Table:
    table = Table("topic", "agency", "service", "what", "sequences", "what to do", show_lines=True)
    for each in missing:
        row = (each.topic, each.agency_id, each.service, each.why, each.sequences, each.remedy)
        table.add_row(*map(escape, row))
    return table


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
                "after": {"epoch": each.after[0], "sequence": each.after[1]},
                "last": {"epoch": each.last[0], "sequence": each.last[1]},
                "reason": each.reason,
                "remedy": each.remedy,
            }
            for each in checked.missing
        ],
    }

"""The command: it compares twice, and reports the differences found both times."""

import asyncio
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from muster_contracts.entitlements import PersonRecorded
from muster_local.reconcile.books import Someone, TopicEnds, read_books
from muster_local.reconcile.comparison import compare, persisting
from muster_local.reconcile.difference import Difference
from muster_local.reconcile.streams import TOPICS, Ends
from muster_local.stack import DEFAULT_HOME
from muster_local.target import HomeOption, Target, console, run
from muster_local.topic_log import TopicLog


def reconcile(
    settle: Annotated[
        float, typer.Option(min=0, help="Seconds between the two checks, so that work in progress is not a difference.")
    ] = 5.0,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Compare the services with each other and with the topics. The exit status is 1 if there is a difference."""
    differences = run(find_differences(Target.find(home).require("admin_dsn", "bootstrap"), settle))
    if not differences:
        console.print("All services agree.")
        return
    table = Table("what", "agency", "found", "what to do", show_lines=True)
    for each in differences:
        table.add_row(each.what, each.agency_id, escape(each.found), escape(each.remedy))
    console.print(table)
    console.print(f"[red]{len(differences)} differences[/red]")
    raise typer.Exit(1)


async def find_differences(target: Target, settle: float) -> list[Difference]:
    """The differences that are there now and still there `settle` seconds later."""
    first = await _look(target)
    if not first:
        return []
    await asyncio.sleep(settle)
    return persisting(first, await _look(target))


async def _look(target: Target) -> list[Difference]:
    before = await read_books(target.admin_dsn, {})
    ends = await _read_topics(target)
    return compare(before, ends, await read_books(target.admin_dsn, ends.streams))


async def _read_topics(target: Target) -> TopicEnds:
    """Where each stream ends on the topics, and whom the directory topic says to hold a seat."""
    ends = Ends()
    people: set[Someone] = set()
    async with TopicLog.open(target.bootstrap, target.topic_prefix, TOPICS) as log:
        async for records in log.batches():
            for record in records:
                topic = record.topic.removeprefix(target.topic_prefix)
                envelope = ends.note(topic, record)
                if envelope is not None and topic == PersonRecorded.topic:
                    someone = envelope.agency_id, (record.key or b"").decode("utf-8", "replace")
                    (people.discard if record.value is None else people.add)(someone)
    return TopicEnds(ends, frozenset(people))

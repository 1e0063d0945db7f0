"""The command: compares twice, and reports the differences found both times."""

import asyncio
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Group
from rich.markup import escape
from rich.text import Text

from muster_contracts.billing import InvoicePaid
from muster_contracts.enrollment import ContactRecorded
from muster_contracts.entitlements import PersonRecorded
from muster_operator.clients import clients_of_servers
from muster_operator.databases.reading import reading
from muster_operator.output import Answer, table
from muster_operator.reconcile.books import InvoiceKey, Someone, TopicEnds, read_books
from muster_operator.reconcile.comparison import compare, persisting
from muster_operator.reconcile.difference import Difference
from muster_operator.reconcile.lost_changes import CHANGES, LostChanges, SeatChange
from muster_operator.reconcile.streams import TOPICS, Ends, read_streams
from muster_operator.target import Target, on_target
from muster_operator.unreadable import warn_unreadable
from muster_runtime.messaging.topic_log import TopicLog
from muster_runtime.text import count

_DIRECTORIES = (ContactRecorded.topic, PersonRecorded.topic)


@on_target(asks=False)
async def reconcile(
    target: Target,
    settle: Annotated[
        float, typer.Option(min=0, help="Seconds between two checks, so that work in progress does not count.")
    ] = 5.0,
) -> Answer:
    """Compare the services with each other and with the topics. The exit status is 1 if there is a difference."""
    target.require("admin_dsn", "kafka")
    async with clients_of_servers(target.kafka):
        differences = await find_differences(target, settle)
    if not differences:
        return Answer({"differences": []}, "All services agree.")
    rows = [(each.what, each.agency_id, escape(each.found), escape(each.remedy)) for each in differences]
    shown = table(("what", "agency", "found", "what to do"), rows, lines=True)
    total = Text(count(len(differences), "difference"), style="red")
    return Answer({"differences": [asdict(each) for each in differences]}, Group(shown, total), ok=False)


async def find_differences(target: Target, settle: float) -> list[Difference]:
    """The differences that exist now and still exist `settle` seconds later."""
    first = await _look(target)
    if not first:
        return []
    await asyncio.sleep(settle)
    return persisting(first, await _look(target))


async def _look(target: Target) -> list[Difference]:
    before = await read_streams(target.admin_dsn, {})
    ends = await read_topics(target)
    return compare(before, ends, await read_books(target.admin_dsn, ends.streams))


async def read_topics(target: Target) -> TopicEnds:
    """Each stream's end, who is on the directory topics, which invoices were paid, and the lost changes of seats."""
    ends, lost = Ends(), LostChanges()
    people: set[Someone] = set()
    paid: set[InvoiceKey] = set()
    async with (
        reading(target.admin_dsn, "entitlements") as entitlements,
        TopicLog.open(target.kafka, target.topic_prefix, TOPICS) as log,
    ):
        async for records in log.batches():
            changes: list[SeatChange] = []
            for record in records:
                topic = record.topic.removeprefix(target.topic_prefix)
                envelope = ends.note(topic, record)
                if envelope is not None and topic in _DIRECTORIES:
                    someone = envelope.agency_id, (record.key or b"").decode("utf-8", "replace")
                    (people.discard if record.value is None else people.add)(someone)
                if envelope is not None and envelope.type == InvoicePaid.event_type:
                    with suppress(ValidationError):  # a reader parks it
                        fact = InvoicePaid.model_validate_json(record.value or b"")
                        paid.add((fact.agency_id, fact.invoice_id))
                # Only what advances its stream: two relays may have written an event again, behind later ones.
                is_latest = envelope is not None and ends[topic, envelope.agency_id].offset == record.offset
                if envelope is not None and is_latest and (change := CHANGES.get(envelope.type)) is not None:
                    with suppress(ValidationError):
                        changes.append(change.model_validate_json(record.value or b""))
            if changes:
                await lost.note(entitlements, changes)
        warn_unreadable(log)
    return TopicEnds(ends, frozenset(people), frozenset(paid), lost.named())

"""Finds the paths that include an ID, and everything known about them."""

import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import timedelta

from aiokafka.errors import KafkaError

from muster_contracts import Position, topics
from muster_operator.failures import CommandFailed, NotFound, Unreachable
from muster_operator.target import Target
from muster_operator.trace.databases import Thing, find_thing, read_facts
from muster_operator.trace.facts import Facts
from muster_operator.trace.records import KEYED, Records
from muster_runtime.messaging.topic_log import TopicLog

_EVENT_ID = re.compile(r"(?P<topic>[a-z.]+)/(?P<agency>[^/]+)/(?P<epoch>[0-9]{1,9})/(?P<sequence>[0-9]{1,20})")


async def search(target: Target, id_: str, quiet: timedelta, limit: int) -> Facts:
    """The facts of the latest `limit` paths that include an ID.

    Raises NotFound, or Unreachable if it may be in a place that could not be searched.
    """
    facts = Facts()
    thing = await find_thing(target.admin_dsn, id_, limit, facts.unseen)
    async with _opened(target, facts.unseen) as records:
        if records is not None:
            async with _noted(target, facts.unseen):
                await _find_on_topics(records, thing, quiet, facts)
        if not thing.correlation_ids:
            raise _nothing(id_, facts.unseen)
        wanted = sorted(thing.correlation_ids)[-limit:]
        if left := len(thing.correlation_ids) - len(wanted):
            facts.unseen.append(f"{left} more paths: --limit")
        await read_facts(target.admin_dsn, wanted, facts)
        if records is not None:
            async with _noted(target, facts.unseen):
                for correlation_id in wanted:
                    await _read_records(records, correlation_id, thing.agencies, quiet, facts)
            facts.unseen += [f"the rest of {partition}" for partition in sorted(records.cut)]
            facts.unseen += [f"{record}, which cannot be decoded" for record in records.unreadable]
    return facts


def _nothing(id_: str, unseen: Collection[str]) -> CommandFailed:
    """The error if nothing was found: NotFound only if every place was searched."""
    nothing = f"nothing was found for {id_!r}"
    return Unreachable(f"{nothing}; not searched: {', '.join(unseen)}") if unseen else NotFound(nothing)


@asynccontextmanager
async def _opened(target: Target, unseen: list[str]) -> AsyncIterator[Records | None]:
    """The topics; None, with a note, if Kafka is not configured or cannot be read."""
    if not target.kafka.bootstrap:
        unseen.append("the topics: MUSTER_KAFKA_BOOTSTRAP is not set")
        yield None
        return
    opening = TopicLog.open(target.kafka, target.topic_prefix, KEYED)
    try:
        log = await opening.__aenter__()
    except (KafkaError, OSError) as error:
        unseen.append(f"the topics: {await target.kafka.failure(error)}")
        yield None
        return
    try:
        yield Records(log)
    finally:
        await opening.__aexit__(None, None, None)


@asynccontextmanager
async def _noted(target: Target, unseen: list[str]) -> AsyncIterator[None]:
    """A block that reads topics. If Kafka fails, note it and keep what was found so far."""
    try:
        yield
    except KafkaError as error:
        unseen.append(f"the rest of the topics: {await target.kafka.failure(error)}")


async def _find_on_topics(records: Records, thing: Thing, quiet: timedelta, facts: Facts) -> None:
    """Find an event's path, or the events that name a thing: they may be the only trace of who changed it."""
    if match := _EVENT_ID.fullmatch(thing.id):
        if match["topic"] not in KEYED:
            return
        position = Position(int(match["epoch"]), int(match["sequence"]))
        if event := await records.at(match["topic"], match["agency"], position):
            facts.add([event])
            thing.agencies.add(event.envelope.agency_id)
            thing.correlation_ids.add(event.envelope.correlation_id)
        return
    named = thing.id.encode()
    if thing.service is not None:
        names = [name for name in KEYED if topics()[name].owner == thing.service]
    elif thing.correlation_ids:
        return
    else:
        names = list(KEYED)
    partitions = records.partitions(thing.agencies, names)
    for instant in sorted(thing.instants):
        found = await records.follow(
            partitions,
            instant,
            instant,
            quiet,
            lambda envelope, record: envelope.correlation_id == thing.id or named in (record.value or b""),
        )
        for event in found:
            thing.agencies.add(event.envelope.agency_id)
            thing.correlation_ids.add(event.envelope.correlation_id)
        facts.add(found)


async def _read_records(
    records: Records, correlation_id: str, agencies: Collection[str], quiet: timedelta, facts: Facts
) -> None:
    """Add a path's events: those around its known instants, or else those in the tails of its partitions."""
    known = facts.of(correlation_id)
    partitions = records.partitions(known.agencies() or agencies)
    instants = known.instants()
    found = []
    if instants:
        found = await records.follow(
            partitions,
            instants[0],
            instants[-1],
            quiet,
            lambda envelope, _: envelope.correlation_id == correlation_id,
        )
    if not found:  # a sandbox's clock differs from Kafka's
        found = await records.tail(partitions, lambda envelope, _: envelope.correlation_id == correlation_id)
    facts.add(found)

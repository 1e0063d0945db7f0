"""Decides which of a stream's records are applied, in which runs, and which wait behind a defect or a gap."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Any

import structlog

from muster_contracts import Duplicate, Gap, NewEpoch, Position, Sighting, judge, topics
from muster_runtime.messaging.events import Received
from muster_runtime.messaging.record_reader import Item
from muster_runtime.observability.telemetry import DUPLICATES, GAPS, NEW_EPOCHS

_log = structlog.get_logger(__name__)

_COMPACTED = {name for name, topic in topics().items() if topic.compacted}


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan for one stream's items: apply the `fresh` ones, then park the `held` ones for `reason`.

    `gap` says that events are missing before the first held item.
    """

    position: Position
    fresh: Sequence[Item]
    held: Sequence[Item]
    reason: str = ""
    gap: bool = False


def make_plan(service: str, topic: str, items: Sequence[Item], last: Position) -> Plan:
    """Drop duplicates, even defective ones. Hold everything from the first defect or gap on."""
    fresh: list[Item] = []
    for index, item in enumerate(items):
        position = item.position
        sighting = None if position is None else sight(position, last, topic)
        if isinstance(sighting, Duplicate):
            DUPLICATES.labels(service, topic).inc()
            continue
        if item.defect is not None or position is None:
            return Plan(last, fresh, items[index:], item.defect or "unreadable")
        if isinstance(sighting, Gap):
            GAPS.labels(service, topic).inc()
            reason = f"gap: sequence {sighting.first} was expected, but {position.sequence} arrived"
            return Plan(last, fresh, items[index:], reason, gap=True)
        if isinstance(sighting, NewEpoch):
            NEW_EPOCHS.labels(service, topic).inc()
            _log.error("new_epoch", topic=topic, agency_id=item.record.agency_id, epoch=position.epoch)
        fresh.append(item)
        last = position
    return Plan(last, fresh, [])


def sight(position: Position, last: Position, topic: str) -> Sighting:
    """What an event is to a reader whose last position is `last`, by the rule that every subscriber follows."""
    return judge(last, position, compacted=topic in _COMPACTED)


def leaves_gap(position: Position, last: Position, topic: str) -> bool:
    """Whether events are missing between the last position and this one."""
    return isinstance(sight(position, last, topic), Gap)


def runs(streams: Sequence[Sequence[Item]]) -> Iterator[list[Received[Any]]]:
    """Split each stream into runs of events of one type, and merge the streams' n-th runs of the same type.

    Order is kept within each stream, but not between streams.
    """
    cut = [
        [(event_type, list(run)) for event_type, run in groupby(_readable(stream), key=lambda r: r.envelope.type)]
        for stream in streams
    ]
    for layer in zip_longest(*cut):
        joined: dict[str, list[Received[Any]]] = {}
        for entry in layer:
            if entry is not None:
                joined.setdefault(entry[0], []).extend(entry[1])
        yield from joined.values()


def _readable(items: Iterable[Item]) -> Iterator[Received[Any]]:
    return (item.event for item in items if item.event is not None)

"""How a subscriber knows that it saw every event once and in order.

A *stream* is one agency's events on one topic, numbered from 1 without gaps. Keep the tracker's state in the same
transaction as the effects of the events. Then each event has its effect once, however often it is delivered.
"""

import json
from dataclasses import dataclass
from typing import NamedTuple

from muster_contracts.topics import topics


class Position(NamedTuple):
    """The place of an event in its stream."""

    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class New:
    """The next event of its stream: apply it."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """An event that was applied already: skip it."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Events are missing, from `first` to `last`; nothing is recorded. Read the topic again from before them."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class NewEpoch:
    """The producer was restored from a backup: apply the event, and reconcile what came after `before`.

    Sequences continue across epochs: its first event repeats or continues what was known; one that skips is a Gap.
    Events of the new epoch with lower numbers than this one may be missing: nothing says with which number it begins.
    """

    before: Position


Sighting = New | Duplicate | Gap | NewEpoch

# The position before a stream's first event, which has sequence 1.
BEFORE_FIRST = Position(epoch=1, sequence=0)


def judge(last: Position | None, seen: Position, *, compacted: bool = False) -> Sighting:
    """Classify an event at `seen` for a reader whose last applied position is `last`; None if it has applied nothing.

    The first event that a reader ever sees of a stream must be number 1, in whatever epoch. A compacted topic keeps
    only the latest record of each key: there, a missing number is no gap.
    """
    known = last or BEFORE_FIRST
    if seen <= known:
        return Duplicate()
    if seen.sequence > known.sequence + 1 and not compacted:
        return Gap(known.sequence + 1, seen.sequence - 1)
    if seen.epoch > known.epoch and known != BEFORE_FIRST:  # otherwise, there is nothing to reconcile
        return NewEpoch(known)
    return New()


class StreamTracker:
    """The positions of a subscriber in all the streams that it reads.

    Not safe for several threads at once: give each consumer its own.
    """

    def __init__(self, positions: dict[tuple[str, str], Position] | None = None) -> None:
        self.positions = dict(positions or {})

    def see(self, topic: str, agency_id: str, epoch: int, sequence: int) -> Sighting:
        """Judge an event, and record its position unless it is a duplicate or behind a gap.

        `topic` is the contract's name, without the installation's prefix.
        """
        stream, seen = (topic, agency_id), Position(epoch, sequence)
        sighting = judge(self.positions.get(stream), seen, compacted=topics()[topic].compacted)
        if isinstance(sighting, New | NewEpoch):
            self.positions[stream] = seen
        return sighting

    def accept(self, topic: str, agency_id: str, epoch: int, sequence: int) -> None:
        """Continue behind a gap, once a person has decided that the missing events do not matter."""
        self.positions[topic, agency_id] = Position(epoch, sequence)

    def to_json(self) -> str:
        """The state: about 60 bytes per stream."""
        rows = sorted((*stream, position.epoch, position.sequence) for stream, position in self.positions.items())
        return json.dumps(rows, separators=(",", ":"))

    @classmethod
    def from_json(cls, state: str) -> "StreamTracker":
        """A tracker that continues from another one's state. Raises ValueError for an invalid state."""
        try:
            return cls(
                {
                    (topic, agency): Position(int(epoch), int(number))
                    for topic, agency, epoch, number in json.loads(state)
                }
            )
        except (ValueError, TypeError) as error:
            raise ValueError(f"not a tracker's state: {error}") from None

"""What the small examples do with a record, whichever client brings it: print each fact once, in its agency's order.

The place in every stream is kept in a file, written after each fact: whatever is delivered again is skipped. A kill
between the two prints one fact twice; `postgres_in_step.py` shows how to have each effect exactly once.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from muster_contracts import Decoded, Duplicate, Gap, NewEpoch, NewerMajor, StreamTracker, decode

BOOTSTRAP = os.environ.get("MUSTER_KAFKA_BOOTSTRAP", "localhost:9092")
PREFIX = os.environ.get("MUSTER_TOPIC_PREFIX", "")
GROUP = os.environ.get("GROUP", "seat-printer")
STATE = Path(os.environ.get("STATE", "positions.json"))
TOPIC = "muster.entitlements.seat"


class MustStop(Exception):
    """Going on would lose a fact: somebody has to look."""


class Printer:
    """Prints facts and remembers the place in their streams."""

    def __init__(self) -> None:
        self._tracker = StreamTracker.from_json(STATE.read_text()) if STATE.exists() else StreamTracker()

    def take(self, headers: Iterable[tuple[str, bytes]], value: bytes | None, key: bytes | None) -> None:
        """Handle one record; when this returns its offset may be committed.

        Raises MustStop at a gap and at a type of a newer major version, and MalformedRecord.
        """
        decoded = decode(headers, value, key)
        envelope = decoded.envelope
        if isinstance(decoded, NewerMajor):
            raise MustStop(f"{envelope.type} needs a newer muster-contracts")
        sighting = self._tracker.see(TOPIC, envelope.agency_id, envelope.epoch, envelope.sequence)
        if isinstance(sighting, Duplicate):
            return
        if isinstance(sighting, Gap):
            raise MustStop(f"{envelope.agency_id}: events {sighting.first} to {sighting.last} are missing")
        if isinstance(sighting, NewEpoch):
            sys.stderr.write(f"{envelope.agency_id}: reconcile what came after {sighting.before}\n")
        # A type that this version does not know has its place in the stream, and nothing else for us.
        if isinstance(decoded, Decoded):
            fact = {"id": envelope.id, "type": envelope.type, "data": decoded.event.model_dump(mode="json")}
            sys.stdout.write(json.dumps(fact) + "\n")
            sys.stdout.flush()
        self._remember()

    def _remember(self) -> None:
        written = STATE.with_suffix(".new")
        written.write_text(self._tracker.to_json())
        written.replace(STATE)

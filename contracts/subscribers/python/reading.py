"""What the small examples do with a record, whichever client brings it: print each fact once, in its agency's order.

They are for one instance. The place in every stream is kept in a file, written after each fact: whatever is delivered
again is skipped. A kill between the two prints one fact twice; `postgres_in_step.py` shows how to have each effect
exactly once, with as many instances as you like.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from muster_contracts import Decoded, Duplicate, Gap, MalformedRecord, NewEpoch, NewerMajor, StreamTracker, decode

TOPIC = "muster.entitlements.seat"
TOPIC_IN_KAFKA = os.environ.get("MUSTER_TOPIC_PREFIX", "") + TOPIC


class MustStop(Exception):
    """Going on would lose a fact, or print one twice: somebody has to look."""


@dataclass(frozen=True)
class Log:
    """What is read, and by which group. A new cluster, and a topic that was recreated, have other ids."""

    group: str
    cluster_id: str
    topic_id: str


@contextmanager
def stopping() -> Iterator[None]:
    """End the program with one line where it must stop."""
    try:
        yield
    except (MustStop, MalformedRecord) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def refuse_a_second(group: str, others: int) -> None:
    """Raise MustStop where the group has another member: two instances would each keep half of the places.

    It is asked before this one joins, so that the first one is left in peace, and again once this one is a member and
    before it handles a record: of two that start at once, each sees the other, and they do not both continue.
    """
    if others:
        raise MustStop(
            f"the group {group} has another member, and this example is for one instance. "
            "One that was killed leaves the group within a minute: start again then."
        )


class Printer:
    """Prints facts and remembers the place in their streams. Raises MustStop where the file is of another log."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._file = Path(os.environ.get("STATE", f"{log.group}.json"))
        self._tracker = StreamTracker()
        if self._file.exists():
            state = json.loads(self._file.read_text())
            if not isinstance(state, dict) or state["log"] != asdict(log):
                raise MustStop(
                    f"{self._file} holds the positions in another log than {asdict(log)}: with it, facts would be "
                    "skipped in silence. Move the file away, and all facts are printed from the first."
                )
            self._tracker = StreamTracker.from_json(json.dumps(state["places"]))

    def waits(self) -> None:
        """Say that the reading has begun: until the next fact, nothing is printed."""
        sys.stderr.write(f"connected, waiting for facts of {TOPIC}\n")

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
        state = {"log": asdict(self._log), "places": json.loads(self._tracker.to_json())}
        written = self._file.with_suffix(".new")
        written.write_text(json.dumps(state))
        written.replace(self._file)

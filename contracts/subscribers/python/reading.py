"""What the small examples do with a record, whichever client reads it: print each fact once, in its agency's order.

Run only one instance. The position in each stream is kept in a file, which is written after each fact, so a repeated
record is skipped. If the program is killed between the two, one fact is printed twice; `postgres_in_step.py` shows how
to have each effect exactly once, in any number of instances.
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
    """Continuing would lose a fact, or print one twice: a person must find out why."""


@dataclass(frozen=True)
class Log:
    """What is read, and by which group. A new cluster or a recreated topic has a different ID."""

    group: str
    cluster_id: str
    topic_id: str


@contextmanager
def stopping() -> Iterator[None]:
    """End the program with one line on stderr if it must stop."""
    try:
        yield
    except (MustStop, MalformedRecord) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def refuse_a_second(group: str, others: int) -> None:
    """Raise MustStop if the group has another member: each of two instances would keep half of the positions.

    Call it before this instance joins, so that it does not disturb a running one, and again once it is a member, before
    it handles a record: if two start at once, each sees the other, so they never both continue.
    """
    if others:
        raise MustStop(
            f"the group {group} has another member, and this example is for one instance. "
            "One that was killed leaves the group within a minute: try again then."
        )


class Printer:
    """Prints facts and stores the positions in their streams. Raises MustStop if the file belongs to another log."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._file = Path(os.environ.get("STATE", f"{log.group}.json"))
        self._tracker = StreamTracker()
        if self._file.exists():
            state = json.loads(self._file.read_text())
            if not isinstance(state, dict) or state["log"] != asdict(log):
                raise MustStop(
                    f"{self._file} holds positions of another log, not of {asdict(log)}: with it, facts would be "
                    "silently skipped. Move the file away; then all facts are printed, from the first one."
                )
            self._tracker = StreamTracker.from_json(json.dumps(state["places"]))

    def waits(self) -> None:
        """Say that it is connected: nothing else is printed until a fact arrives."""
        sys.stderr.write(f"connected, waiting for facts of {TOPIC}\n")

    def take(self, headers: Iterable[tuple[str, bytes]], value: bytes | None, key: bytes | None) -> None:
        """Handle one record. When this returns, the record's offset may be committed.

        Raises MustStop for a gap or a newer major version of a type, and MalformedRecord.
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
        # Of a type that this version does not know, only the position counts.
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

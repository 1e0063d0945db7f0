"""What was asked of a service and how it ended, kept in a file: the oracle trusts nothing else from the sender."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

# It was answered; it got no answer, and may or may not have been carried out; or it was refused.
Ending = Literal["answered", "lost", "refused"]


@dataclass(frozen=True)
class Command:
    """A command to assign seats, under its Idempotency-Key."""

    key: str
    agency_id: str
    seat_ids: Sequence[str]
    ending: Ending
    answer: str = ""


class Recorder:
    """Appends commands to a file, each as soon as its ending is known."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def record(self, command: Command) -> None:
        """Keep a command; the line is on the disk when this returns."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(command)) + "\n")

    def commands(self) -> list[Command]:
        """Every command so far."""
        with self._path.open(encoding="utf-8") as file:
            return [Command(**json.loads(line)) for line in file]
